# The key comes from the Secret itself and is deleted once it has done its work; no Secret means
# that tailscaled makes it.
# personas: containerboot boot
service_account node
make_secret node authkey="$(auth_key once)"
env=("${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node TS_AUTH_ONCE=true TS_HOSTNAME="$NS-node")
start node "${env[@]}"
ready node
! secret_has node authkey || fail "authkey is still in the Secret"
id=$(node_id node)
stop node

start node "${env[@]}"
ready node
is id "$(node_id node)" "$id"
stop node
