# As containerboot the command line tool refuses to drop an option that was set before. It prints
# the whole command that it would accept, key included; that part must not reach the log.
# personas: containerboot
# original: no, it lets the tool print the key
env=(TS_STATE_DIR="$CASE/state" TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node")
start node "${env[@]}" TS_EXTRA_ARGS="--login-server=$CONTROL --shields-up"
ready node
stop node

start node "${env[@]}" TS_EXTRA_ARGS="--login-server=$CONTROL"
exits node 1
said node "tailscale up failed: exit status 1"
