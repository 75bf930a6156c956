# Share mode as tailscaled has it: the writer fills the Secret of the name, a reader serves from it and never orders.
# personas: lab
. "$HERE/proxy.sh"
. "$HERE/acme.sh"
. "$HERE/certs.sh"
acme_start
shop=$NS-shop.lab.ts.net
cert_domains "$shop" "$NS-bare.lab.ts.net"
service_account writer
service_account reader get,update,patch create,list
replica writer rw
replica reader ro

# Without the Secret that the operator makes, an order is fulfilled and its certificate lost.
ask writer "$NS-bare.lab.ts.net"
answered writer 500 "error writing TLS cert and key to Secret: error getting Secret $NS-bare.lab.ts.net"
is "certificates that nobody has" "$(fulfilled "$NS-bare.lab.ts.net")" 1

tls_secret "$shop" writer
tls_rights "$shop" reader
ask reader "$shop"
answered reader 500 "cert store is configured in read-only mode, not attempting to issue a new certificate"
is "orders" "$(orders "$shop")" 0
ask writer "$shop"
answered writer 200
is "the Secret" "$(secret_serial "$shop")" "$(serial_in "$CASE/writer.body")"
is "keys of the Secret" "$(secret "$shop" | paste -sd ' ')" "tls.crt tls.key"
ask reader "$shop"
answered reader 200
is "what the reader has" "$(serial_in "$CASE/reader.body")" "$(secret_serial "$shop")"

# The writer reads the Secret each time, the reader keeps what it has seen.
kubectl patch secret "$shop" -n "$NS" --patch '{"data": {"tls.crt": "", "tls.key": ""}}' >/dev/null
ask writer "$shop"
answered writer 200
is "orders" "$(orders "$shop")" 2
first=$(serial_in "$CASE/reader.body")
ask reader "$shop"
is "what the reader has" "$(serial_in "$CASE/reader.body")" "$first"

# Who may not write it finds out after the authority has issued.
kubectl patch role "$shop" -n "$NS" --type json \
  --patch '[{"op": "replace", "path": "/rules/0/verbs", "value": ["get", "list"]}]' >/dev/null
ask writer "$shop" min_validity=2160h
answered writer 500 "error writing TLS cert and key to Secret: error patching Secret $shop"
is "certificates" "$(fulfilled "$shop")" 3
