# A new name from control reaches the Secret, and nothing else is written again.
# personas: containerboot boot
service_account node
start node "${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node"
ready node
await 5 "the device keys" device_is_published node
control POST "/nodes/$(node_id node)/rename?name=$NS-renamed"
await 10 "the new name in the Secret" secret_is node device_fqdn "$NS-renamed.lab.ts.net."
device_is_published node || fail "the device keys do not agree with the node"
stop node
