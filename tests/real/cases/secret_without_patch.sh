# No patch permission: boot writes nothing at all, and comes up all the same.
# personas: containerboot boot
service_account node get,update create
make_secret node foreign=kept
start node "${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node"
ready node
is "number of patches" "$(requests node patch)" 0
! secret_has node device_id || fail "device_id is in the Secret"
stop node
