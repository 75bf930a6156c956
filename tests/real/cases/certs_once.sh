# `certs run --once`: every name gets one attempt, the authority's troubles are told by name, and the exit code is that of
# the worst.
# personas: certs
. "$HERE/proxy.sh"
. "$HERE/acme.sh"
. "$HERE/certs.sh"
acme_start 7776000 blocked.lab.ts.net
cert_domains "$NS-"{a,b,limited}.lab.ts.net blocked.lab.ts.net
node_start peer
socket=$CASE/peer/tailscaled.sock
once() {
  local name names=()
  for name in "$@"; do
    names+=(--domain "$name.lab.ts.net")
  done
  certs run --once --wait-allowed 2s "${names[@]}"
}
once "$NS-a" "$NS-b"
ends 0
is "orders" "$(orders "$NS-a.lab.ts.net") $(orders "$NS-b.lab.ts.net") of $(issued)" "1 1 of 2"
once "$NS-a" "$NS-b"
ends 0
is "orders" "$(issued)" 2
once "$NS-a" blocked
[ "$code" != 0 ] || fail "a refused name is no failure"
grep -q "forbidden by policy" "$CASE/said" "$CASE/warned" || fail "it says: $(cat "$CASE/said" "$CASE/warned")"
once "$NS-a" "$NS-other"
[ "$code" != 0 ] || fail "a name that is not allowed is no failure"
trouble "path=/order-plz&name=$NS-limited.lab.ts.net&status=403&type=rateLimited&detail=too%20many&retry-after=17"
once "$NS-a" "$NS-limited"
[ "$code" != 0 ] || fail "a rate limit is no failure"
no_trouble
once "$NS-a" "$NS-limited"
