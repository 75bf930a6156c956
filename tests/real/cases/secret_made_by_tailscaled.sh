# No Secret beforehand: tailscaled makes it, and the device keys still get there.
# personas: containerboot boot
service_account node
start node "${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node"
ready node
await 5 "the device keys" device_is_published node
stop node
