# What there is of certificates, and what is served to the tailnet: to look costs no order, neither where a certificate is
# missing nor where it is due.
# personas: certs
. "$HERE/proxy.sh"
. "$HERE/acme.sh"
. "$HERE/certs.sh"
acme_start 518400
cert_domains "$NS-shop.lab.ts.net"
viewer_start
node_start peer
socket=$CASE/peer/tailscaled.sock
own=$NS-peer.lab.ts.net
kept=$CASE/peer-state/certs/$own.crt
# listed DOMAIN FILTER [FLAG...]
listed() {
  certs list --output json --cert-dir "$CASE/peer-state/certs" "${@:3}"
  jq -r --arg domain "$1" ".certificates[] | select(.domain == \$domain) | $2" "$CASE/said"
}
is "status" "$(listed "$own" .status)" missing
is "orders" "$(ordered true)" 0

ask peer "$own"
answered peer 200
is "status" "$(listed "$own" .status)" critical # six days are fewer than seven
is "status" "$(listed "$own" '"\(.status) \(.days) \(.keyMatches)"' --crit-days 2)" "ok 5 true"
is "serial" "$(listed "$own" '.serial | ascii_upcase')" "$(serial_in "$kept")"
certs list --exit-code --cert-dir "$CASE/peer-state/certs"
ends 3
certs list --exit-code --cert-dir "$CASE/peer-state/certs" --crit-days 2 --serve-config <(jq -n --arg own "$own" '{Web: {($own + ":443"): {}}}')
certs show "$own" --pem --cert-dir "$CASE/peer-state/certs"
ends 0 "$(sed -n 2p "$kept")"
! grep -q PRIVATE "$CASE/said" || fail "it shows the key"

# Two nodes, each by its own way to the first: the serial that is kept is served, and another one is not.
"$BIN/tailscale" --socket="$socket" serve --bg --https=443 text:hello >/dev/null
await 10 "the page" serves peer "$own" "$(serial_in "$kept")"
certs verify "$own" --cert-dir "$CASE/peer-state/certs"
ends 0 same
socket=$CASE/viewer/tailscaled.sock
certs verify "$own" --serial "$(serial_in "$kept")"
ends 0 same
certs verify "$own" --serial 1234
ends 3
is "orders" "$(orders "$own") of $(issued)" "1 of 1"
