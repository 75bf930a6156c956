# A certificate that is nearly over comes back unchanged, for its renewal fails behind the answer, where nobody sees it.
# Less than a sixth before the end the next question is one that waits for the renewal: the refusal is seen, and when the
# authority has thought better of it, the new certificate comes.
# personas: certs
# takes: 30
. "$HERE/proxy.sh"
. "$HERE/acme.sh"
. "$HERE/certs.sh"
acme_start 30
node_start peer
own=$NS-peer.lab.ts.net
kept=$CASE/peer-state/certs/$own.crt
subject=("$TAILPOD" certs run --forever --domain "$own" --socket "$CASE/peer/tailscaled.sock")
start run TS_STATE_DIR="$CASE/run"
hurry() { kill -HUP "${pid[run]}"; }
sleep 1
hurry # names start within 30 s, not all at once
await 40 "the certificate" test -s "$kept"
first=$(serial_in "$kept")
trouble "path=/order-plz&status=403&type=unauthorized&detail=not%20today"
sleep 25.3 # of 30
hurry
sleep 0.5
said run "not today" && fail "an ordinary question got the refusal"
hurry
await_said run "not today" 2
no_trouble
hurry
renewed() { [ "$(serial_in "$kept")" != "$first" ]; }
await 3 "the renewal" renewed
said peer "starting sync renewal" || fail "it was renewed behind an answer"
is "orders" "$(orders "$own") of $(issued)" "2 of 2"
stop run
