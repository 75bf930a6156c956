# A key that control does not know ends the start; `tailpod boot` says what to do. The right key
# then works on the same state.
# personas: containerboot boot
env=("${up[@]}" TS_STATE_DIR="$CASE/state" TS_HOSTNAME="$NS-node")
start node "${env[@]}" TS_AUTHKEY="$(dead_key)"
exits node "$(code 10)" 65
said node "invalid key"
if boot; then said node "new key" || said node "new auth key" || fail "it does not say what to do"; fi

start node "${env[@]}" TS_AUTHKEY="$(auth_key)"
ready node
stop node
