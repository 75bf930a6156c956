# SIGTERM while nobody has logged in yet.
# personas: containerboot boot
start node "${up[@]}" TS_STATE_DIR="$CASE/state" TS_HOSTNAME="$NS-node"
await_said node "$CONTROL/auth/"
stop node
