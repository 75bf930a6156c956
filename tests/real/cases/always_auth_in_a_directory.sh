# Always-auth with state in a directory: the same device logs in again.
# personas: containerboot boot
key=$(auth_key)
env=("${up[@]}" TS_AUTHKEY="$key" TS_STATE_DIR="$CASE/state" TS_HOSTNAME="$NS-node")
start node "${env[@]}"
ready node
id=$(node_id node) ips=$(node_ips node)
stop node

start node "${env[@]}"
ready node
is id "$(node_id node)" "$id"
is addresses "$(node_ips node)" "$ips"
stop node
