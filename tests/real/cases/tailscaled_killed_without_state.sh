# The same with state in memory: it logs in again with its key, as another device.
# personas: boot
start node "${up[@]}" TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node"
ready node
first=$(child node tailscaled)
kill -KILL "$first"
await 15 "another tailscaled" another_child node tailscaled "$first"
await 15 "the node to run again" is_running node
stop node
