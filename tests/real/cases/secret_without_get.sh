# No get permission: it cannot work, and the line says which verb is missing.
# personas: containerboot boot
service_account node update,patch create
make_secret node foreign=kept
start node "${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node"
exits node 1
said node 'missing get permission on secret "node"'
