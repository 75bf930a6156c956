# The same with state in a Secret.
# personas: boot
service_account node
start node "${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node TS_AUTH_ONCE=true TS_AUTHKEY="$(auth_key once)" TS_HOSTNAME="$NS-node"
ready node
await 5 "the device keys" device_is_published node
id=$(node_id node) first=$(child node tailscaled)
kill -KILL "$first"
await 15 "another tailscaled" another_child node tailscaled "$first"
await 15 "the node to run again" is_running node
is id "$(node_id node)" "$id"
device_is_published node || fail "the device keys do not agree with the node"
stop node
