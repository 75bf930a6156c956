# Three replicas, of which the one that holds the Lease orders. However it loses the Lease, another takes over, there is
# one order for the name, and it writes nothing afterwards. One scene for each way, all at the same time, with a Lease of 3 s.
# personas: certs
# takes: 15
. "$HERE/proxy.sh"
. "$HERE/acme.sh"
. "$HERE/certs.sh"
. "$HERE/lease.sh"
scenes=(killed released halfway stopped partitioned slow)
acme_start
writers_start "${scenes[@]/#/$NS-}"

# The replicas of one scene reach the API server through a network that can be cut, each its own.
for ordinal in 0 1 2; do
  subject=("$HERE/relay" "$KUBE_PORT")
  start "relay-$ordinal"
done
relay_port() { grep -m 1 '^{' "${log[relay-$1]}" | jq .port; }
for ordinal in 0 1 2; do
  await 5 "relay $ordinal" relay_port "$ordinal"
done

for scene in "${scenes[@]}"; do
  case $scene in
  halfway | stopped | partitioned) trouble "path=/finalize-order/&name=$(domain "$NS-$scene")&hang" ;;
  slow) trouble "path=/finalize-order/&name=$(domain "$NS-$scene")&slow=8s" ;;
  esac
  for ordinal in 0 1 2; do
    port=$KUBE_PORT
    [ "$scene" != partitioned ] || port=$(relay_port "$ordinal")
    candidate "$NS-$scene" "$ordinal" KUBERNETES_SERVICE_PORT_HTTPS="$port" KUBERNETES_SERVICE_PORT="$port"
  done
done

# midway GROUP: its order waits at the authority.
midway() { [ "$(ordered ".path == \"/finalize-order/\" and .name == \"$(domain "$1")\" and .state == \"held\"")" = 1 ]; }
broken_off() { [ "$(ordered ".path == \"/finalize-order/\" and .name == \"$(domain "$1")\" and .state == \"lost\"")" = 1 ]; }

# begin GROUP: names start within 30 s, not all at once, unless somebody is in a hurry.
begin() {
  local ordinal
  await 20 "a holder of $1" is_held "$1"
  sleep 2 # a signal that comes before all of them expect it would end them
  for ordinal in 0 1 2; do
    kill -HUP "${pid[$1-$ordinal]}"
  done
}

killed() {
  begin "$1"
  await 40 "the certificate of $1" has_certificate "$1"
  before=$(holder "$1")
  kill -KILL "${pid[$before]}"
  await 10 "another holder of $1" taken "$1" "$before"
  is "orders of $1" "$(orders "$(domain "$1")")" 1
}
released() {
  begin "$1"
  await 40 "the certificate of $1" has_certificate "$1"
  before=$(holder "$1")
  kill -TERM "${pid[$before]}"
  await 5 "$before to end" gone "$before"
  await 3 "another holder of $1" taken "$1" "$before"
  is "orders of $1" "$(orders "$(domain "$1")")" 1
}
# What its order has come to is not known any more, and so nobody orders again for a while.
halfway() {
  begin "$1"
  await 40 "the order of $1" midway "$1"
  before=$(holder "$1")
  kill -KILL "${pid[$before]}"
  await 5 "the end of the order of $1" broken_off "$1"
  await 10 "another holder of $1" taken "$1" "$before"
  sleep 5
  is "orders of $1" "$(orders "$(domain "$1")")" 1
}
stopped() {
  begin "$1"
  await 40 "the order of $1" midway "$1"
  before=$(holder "$1")
  kill -STOP "${pid[$before]}"
  await 10 "another holder of $1" taken "$1" "$before"
  kill -CONT "${pid[$before]}"
  await 5 "the end of the order of $1" broken_off "$1"
  sleep 3
  is "orders of $1" "$(orders "$(domain "$1")")" 1
  taken "$1" "$before" || fail "$before holds again"
}
# It sees that it cannot renew, and ends its order before another may begin one.
partitioned() {
  begin "$1"
  await 40 "the order of $1" midway "$1"
  before=$(holder "$1")
  kill -STOP "${pid[relay-${before##*-}]}"
  await 3 "the end of the order of $1" broken_off "$1"
  is "holder of $1 by then" "$(holder "$1")" "$before"
  await 10 "another holder of $1" taken "$1" "$before"
  kill -CONT "${pid[relay-${before##*-}]}"
  sleep 3
  is "orders of $1" "$(orders "$(domain "$1")")" 1
  taken "$1" "$before" || fail "$before holds again"
}
# An order that takes longer than the Lease is no reason to lose it.
slow() {
  begin "$1"
  await 60 "the certificate of $1" has_certificate "$1"
  is "orders of $1" "$(orders "$(domain "$1")")" 1
  is "holders of $1" "$(history "$1" | jq '.holders | length')" 1
}

playing=()
for scene in "${scenes[@]}"; do
  "$scene" "$NS-$scene" &
  playing+=($!)
done
status=0
for play in "${playing[@]}"; do
  wait "$play" || status=1
done
history "$NS-" >"$CASE/history"
cat "$CASE/history" >&2
[ "$status" = 0 ]
is "what was written by others than the holder" "$(jq -rs '[.[].strays[]] | join("; ")' "$CASE/history")" ""
is "takeovers that took too long" "$(jq -s '[.[].takeovers[] | select(. > 5.25)] | length' "$CASE/history")" 0
