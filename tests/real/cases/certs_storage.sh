# With share mode the certificate goes to a Secret: without one, or without the right to write it, no authority is asked.
# personas: certs
. "$HERE/proxy.sh"
. "$HERE/acme.sh"
. "$HERE/certs.sh"
acme_start
shop=$NS-shop.lab.ts.net
cert_domains "$shop"
service_account writer
service_account reader get,update,patch create,list
replica writer rw
replica reader ro
once() {
  subject=("$TAILPOD" certs run --once --domain "$shop" --wait-allowed 5s --socket "$CASE/$1/tailscaled.sock" --proxy-group "$NS")
  mkdir -p "$CASE/once-$1"
  ln -sfn "$CASE/$1/serviceaccount" "$CASE/once-$1/serviceaccount"
  start "once-$1" "${in_cluster[@]}" KUBERNETES_SERVICE_PORT="$KUBE_PORT" POD_NAME="$NS-${2:-0}" POD_UID=uid
}
once writer
exits once-writer 1
is "orders" "$(ordered true)" 0
tls_secret "$shop" writer
tls_rights "$shop" reader
once writer
exits once-writer 0
is "orders" "$(orders "$shop") of $(issued)" "1 of 1"
once reader 1
await 30 "the reader to end" gone once-reader
is "orders" "$(orders "$shop") of $(issued)" "1 of 1"
is "the Secret" "$(secret "$shop" tls.crt | openssl x509 -noout -ext subjectAltName | tail -n 1 | tr -d ' ')" "DNS:$shop"
