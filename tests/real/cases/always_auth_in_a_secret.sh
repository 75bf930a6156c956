# State in a Secret, under the RBAC that Tailscale documents: what the operator and its users read
# is there after the start, and a restart is the same device.
# personas: containerboot boot
service_account node
make_secret node foreign=kept
env=("${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node" POD_UID=uid-1)
start node "${env[@]}"
ready node
await 5 "the device keys" device_is_published node
is pod_uid "$(secret node pod_uid)" uid-1
[[ $(secret node tailscale_capver) =~ ^[0-9]+$ ]] || fail "tailscale_capver is no number"
is foreign "$(secret node foreign)" kept
secret_has node _machinekey || fail "tailscaled's state is not in the Secret"
id=$(node_id node) ips=$(node_ips node)
stop node

start node "${env[@]}" POD_UID=uid-2
ready node
is id "$(node_id node)" "$id"
is addresses "$(node_ips node)" "$ips"
is pod_uid "$(secret node pod_uid)" uid-2
stop node
