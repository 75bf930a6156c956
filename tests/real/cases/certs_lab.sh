# What tailscaled itself does about a certificate, so that the cases about ours stand on what is so: the first is issued,
# a second question costs no order, a renewal that is due happens behind an answer with the old one.
# personas: lab
. "$HERE/proxy.sh"
. "$HERE/acme.sh"
. "$HERE/certs.sh"
acme_start 518400
node_start peer
own=$NS-peer.lab.ts.net
"$BIN/tailscale" --socket="$CASE/peer/tailscaled.sock" cert --cert-file "$CASE/first.crt" --key-file "$CASE/first.key" "$own"
first=$(serial_in "$CASE/first.crt")
openssl verify -CAfile "$CASE/acme/root.crt" -untrusted "$CASE/first.crt" -verify_hostname "$own" "$CASE/first.crt" >/dev/null
due "$CASE/first.crt"

# The answer is the old one; the new one comes behind it, and says which it replaces.
ask peer "$own" "type=pair&min_validity=0s"
answered peer 200 "-----END EC PRIVATE KEY-----"
is "the first block" "$(head -n 1 "$CASE/peer.body")" "-----BEGIN EC PRIVATE KEY-----"
is "the answer when it is due" "$(serial_in "$CASE/peer.body")" "$first"
is_renewed() { ask peer "$own" type=cert && [ "$(serial_in "$CASE/peer.body")" != "$first" ]; }
await 10 "the renewal" is_renewed
second=$(serial_in "$CASE/peer.body")
is "replacing orders" "$(ordered '.replaces and .state == "201"')" 1

# Not due: no order, whoever asks. More validity than it has left: an order before the answer. More than any has: always.
ask peer "$own." type=cert
answered peer 200
is "the answer for the name with a dot" "$(serial_in "$CASE/peer.body")" "$second"
ask peer "$own" "type=cert&min_validity=100h"
is "orders" "$(orders "$own")" 2
ask peer "$own" "type=cert&min_validity=200h"
ask peer "$own" "type=cert&min_validity=200h"
is "orders" "$(orders "$own")" 4
is "certificates" "$(fulfilled "$own") of $(issued)" "4 of 4"
