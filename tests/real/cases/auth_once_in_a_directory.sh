# Auth-once with state in a directory: the key is needed once, a restart is the same device.
# personas: containerboot boot
env=("${up[@]}" TS_AUTH_ONCE=true TS_STATE_DIR="$CASE/state" TS_HOSTNAME="$NS-node")
start node "${env[@]}" TS_AUTHKEY="$(auth_key once)"
ready node
id=$(node_id node) ips=$(node_ips node)
stop node

start node "${env[@]}"
ready node
is id "$(node_id node)" "$id"
is addresses "$(node_ips node)" "$ips"
stop node
