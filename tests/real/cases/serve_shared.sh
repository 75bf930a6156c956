# Share mode: of two replicas the first has the certificate of a Service issued and put into the Secret of its name; the
# second, which is there first, orders nothing, answers with the same, and does not advertise the Service before.
# personas: containerboot boot
. "$HERE/proxy.sh"
. "$HERE/acme.sh"
. "$HERE/certs.sh"
acme_start
shop=$NS-shop.lab.ts.net
cert_domains "$shop"
jq -n --arg host "$shop:443" '{Services: {"svc:shop": {TCP: {"443": {HTTPS: true}},
  Web: {($host): {Handlers: {"/": {Text: "hello"}}}}}}}' >"$CASE/serve.json"
share() {
  service_account "$1" get,update,patch create,list
  [ "$1" != shop-0 ] || tls_secret "$shop" "$1"
  tls_rights "$shop" "$1"
  pod "$1" "${up[@]}" "${in_cluster[@]}" KUBERNETES_SERVICE_PORT="$KUBE_PORT" "${acme_env[@]}" SSL_CERT_FILE="$CASE/ca.crt" \
    TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-$1" TS_KUBE_SECRET="$1" POD_NAME="$1" POD_UID="uid-$1" \
    TS_SERVE_CONFIG="$CASE/serve.json" TS_EXPERIMENTAL_CERT_SHARE=true
}
advertises() { [ "$(localapi "$1" prefs | jq -c '.AdvertiseServices // []')" = "$2" ]; }
share shop-1
ready shop-1
await_said shop-1 'svc:shop is not advertised yet: it listens on 443 only, and has no certificate'
advertises shop-1 '[]' || fail "it is advertised without a certificate"
share shop-0
ready shop-0
is_issued() { [ -n "$(secret_serial "$shop")" ]; }
await 60 "the certificate" is_issued
is "orders" "$(orders "$shop") of $(issued)" "1 of 1"
for replica in shop-0 shop-1; do
  await 15 "$replica to advertise it" advertises "$replica" '["svc:shop"]'
done
said shop-1 "svc:shop is advertised now: there is a certificate for $shop"
ask shop-1 "$shop" type=cert
answered shop-1 200
is "what the second has" "$(serial_in "$CASE/shop-1.body")" "$(secret_serial "$shop")"
is "orders" "$(orders "$shop") of $(issued)" "1 of 1"
