# A key that has died since does not matter to a node that is already in.
# personas: containerboot boot
env=("${up[@]}" TS_STATE_DIR="$CASE/state" TS_HOSTNAME="$NS-node")
key=$(auth_key)
start node "${env[@]}" TS_AUTHKEY="$key"
ready node
id=$(node_id node)
stop node

control DELETE "/keys/$key"
start node "${env[@]}" TS_AUTHKEY="$key"
ready node
is id "$(node_id node)" "$id"
stop node
