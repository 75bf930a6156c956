# By hand: a certificate is issued, not ordered again when it is there, and what is refused is refused without an order or
# in the authority's words.
# personas: certs
. "$HERE/proxy.sh"
. "$HERE/acme.sh"
. "$HERE/certs.sh"
acme_start 518400 blocked.lab.ts.net
cert_domains "$NS-shop.lab.ts.net" blocked.lab.ts.net
node_start peer
socket=$CASE/peer/tailscaled.sock
own=$NS-peer.lab.ts.net
certs issue "$own" --dry-run
ends 0
certs issue "$NS-shpo.lab.ts.net"
ends 1 "$NS-shop.lab.ts.net"
certs issue "$own" --min-validity 2160h
[ "$code" != 0 ] || fail "it asks for more validity than there is"
is "orders" "$(ordered true)" 0
certs issue blocked.lab.ts.net
ends 1 "forbidden by policy"

certs issue "$own" --write-cert "$CASE/own.crt" --write-key "$CASE/own.key"
ends 0
is "orders" "$(orders "$own") of $(issued)" "1 of 1"
is "mode of the key" "$(stat -c %a "$CASE/own.key")" 600
openssl verify -CAfile "$CASE/acme/root.crt" -untrusted "$CASE/own.crt" -verify_hostname "$own" "$CASE/own.crt" >/dev/null
cmp <(openssl x509 -in "$CASE/own.crt" -noout -pubkey) <(openssl pkey -in "$CASE/own.key" -pubout) ||
  fail "the key is another one's"
certs issue "$own" --cert-dir "$CASE/peer-state/certs"
ends 0 unchanged
certs issue "$own" --min-validity 140h --cert-dir "$CASE/peer-state/certs"
[ "$code" != 0 ] || fail "it asks for nearly all validity that there is"
is "orders" "$(orders "$own")" 1

# Ctrl-C in the middle of an order ends the order.
trouble "path=/finalize-order/&hang"
"$TAILPOD" certs issue "$NS-shop.lab.ts.net" --socket "$socket" >"$CASE/said" 2>&1 &
issuing=$!
await 10 "an order" held /finalize-order/
kill -INT "$issuing"
code=0
wait "$issuing" || code=$?
[ "$code" != 0 ] || fail "an order that was broken off is no success"
order_ended() { ! held /finalize-order/; }
await 5 "the order to end" order_ended
no_trouble
certs issue "$NS-shop.lab.ts.net"
ends 0
is "certificates" "$(fulfilled "$NS-shop.lab.ts.net")" 1
