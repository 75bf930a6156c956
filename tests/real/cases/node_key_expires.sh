# The node key expires while it runs and there is no key at hand: containerboot ends at once,
# `tailpod boot` gives it 30 s and then says what it was.
# personas: containerboot boot
# takes: 30
env=("${up[@]}" TS_AUTH_ONCE=true TS_STATE_DIR="$CASE/state" TS_HOSTNAME="$NS-node")
start node "${env[@]}" TS_AUTHKEY="$(auth_key once)"
ready node
stop node
start node "${env[@]}"
ready node
control POST "/nodes/$(node_id node)/expire"
exits node "$(code 13)" 50
if ! boot; then said node 'tailscaled left running state (now in state "NeedsLogin"), exiting'; fi
