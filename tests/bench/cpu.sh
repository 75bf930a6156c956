# shellcheck shell=bash
# CPU time while control changes the node itself 20 times a second.
. "$(dirname "$1")/subjects.sh"

# In milliseconds, user and system.
cpu() { awk -v hz="$(getconf CLK_TCK)" '{ print ($14 + $15) * 1000 / hz }' "/proc/${pid[$1]}/stat"; }

for who in "${subjects[@]}"; do
  become "$who"
  service_account "$who"
  pod_env "$who"
  start "$who" "${env[@]}"
  ready "$who" 60
  sleep "$SETTLE"
  before=$(cpu "$who")
  # What tailscaled makes of it is counted too: a load that does not arrive measures nothing.
  curl -sSN --max-time $((SECONDS_OF_LOAD + 2)) --unix-socket "$CASE/$who/tailscaled.sock" \
    'http://local-tailscaled.sock/localapi/v0/watch-ipn-bus?mask=0' 2>/dev/null >"$CASE/bus" &
  watch=$!
  curl -fsS --max-time $((SECONDS_OF_LOAD + 30)) -X POST \
    "$CONTROL_ADMIN/nodes/$(node_id "$who")/self-changes?rate=20&seconds=$SECONDS_OF_LOAD" >/dev/null
  after=$(cpu "$who")
  wait "$watch" || true
  heard=$(grep -c '"SelfChange":{' "$CASE/bus" || true)
  [ "$heard" -ge $((SECONDS_OF_LOAD * 15)) ] || fail "tailscaled reported only $heard changes"
  result cpu "$who" "${SECONDS_OF_LOAD}s" "$(jq -n "$after - $before")"
  stop "$who"
done
