# The authority is killed in the middle of an order: that is said, and the name is issued once it is back.
# personas: certs
. "$HERE/proxy.sh"
. "$HERE/acme.sh"
. "$HERE/certs.sh"
acme_start
node_start peer
socket=$CASE/peer/tailscaled.sock
own=$NS-peer.lab.ts.net
trouble "path=/finalize-order/&hang"
certs issue "$own" &
issuing=$!
await 10 "an order" held /finalize-order/
acme_kill
no_trouble
wait "$issuing"
grep -q CreateOrder "$CASE/warned" || fail "it says: $(cat "$CASE/said" "$CASE/warned")"
certs issue "$own"
ends 1 "acme.GetReg"
acme_run
certs issue "$own"
ends 0
is "certificates" "$(fulfilled "$own")" 1
