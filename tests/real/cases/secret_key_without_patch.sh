# A key in the Secret that could not be deleted later is refused.
# personas: containerboot boot
service_account node get,update create
make_secret node authkey="$(auth_key)"
start node "${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node TS_HOSTNAME="$NS-node"
exits node 1
said node "patch permissions on the Secret"
