# A replica whose tailscaled only reads has read a certificate that ends within a day; the group's writer has renewed it
# since. Its tailscaled is started anew, once, and serves the new one; nothing is ordered for that.
# personas: boot
. "$HERE/proxy.sh"
. "$HERE/acme.sh"
. "$HERE/certs.sh"
acme_start 7200
shop=$NS-shop.lab.ts.net
cert_domains "$shop"
service_account writer
replica writer rw
tls_secret "$shop" writer
ask writer "$shop"
answered writer 200
first=$(secret_serial "$shop")

# It reads when it is started, and tailpod looks when the node is up: in between, nobody has approved it.
service_account reader get,update,patch create,list
tls_rights "$shop" reader
pod reader "${up[@]}" "${in_cluster[@]}" KUBERNETES_SERVICE_PORT="$KUBE_PORT" SSL_CERT_FILE="$CASE/ca.crt" \
  TS_AUTHKEY="$(auth_key unapproved)" TS_HOSTNAME="$NS-reader" TS_KUBE_SECRET=reader POD_NAME="$NS-1" POD_UID=uid-reader \
  TS_EXPERIMENTAL_CERT_SHARE=true TAILPOD_CERT_RELOAD=true TAILPOD_WITHDRAW_WAIT=0s
waits() { [ "$(node reader .BackendState 2>/dev/null)" = NeedsMachineAuth ]; }
await 15 "the wait for approval" waits
# Which of two is newer, their ends tell, and those are whole seconds.
sleep 1
ask writer "$shop" min_validity=7199s
answered writer 200
second=$(secret_serial "$shop")
[ "$second" != "$first" ] || fail "it was not renewed"
control POST "/nodes/$(node_id reader)/approve"
await_said reader "tailscaled is started anew" 20
serves_second() {
  ask reader "$shop" type=cert 2
  [ "$(serial_in "$CASE/reader.body")" = "$second" ]
}
await 20 "the second certificate" serves_second
turn_is_over() {
  [ -z "$(kubectl get secret "$shop" -n "$NS" -o json | jq -r '.metadata.annotations["tailpod.dev/cert-reloading"] // empty')" ]
}
await 10 "the end of its turn" turn_is_over
is "starts" "$(grep -c 'Starting tailscaled' "${log[reader]}")" 2
is "orders" "$(orders "$shop") of $(issued)" "2 of 2"
