# No key at all: the URL is printed, and a visit to it lets the node in.
# personas: containerboot boot
start node "${up[@]}" TS_STATE_DIR="$CASE/state" TS_HOSTNAME="$NS-node"
await_said node "$CONTROL/auth/"
url=$(grep -oE "$CONTROL/auth/[0-9a-f]+" "${log[node]}" | head -n 1)
control POST "/login?url=$url"
ready node
stop node
