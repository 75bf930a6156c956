# No Secret, and no right to make one: the way out is in the message.
# personas: containerboot boot
service_account node get,update,patch list
start node "${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node"
exits node 1
said node TS_KUBE_SECRET
