# The API server answers nobody for a while: the node stays, and what happened meanwhile is
# written afterwards.
# personas: containerboot boot
service_account node
start node "${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node"
ready node
await 5 "the device keys" device_is_published node
apiserver_pause
control POST "/nodes/$(node_id node)/rename?name=$NS-renamed"
await 10 "the node to hear its new name" is_named node "$NS-renamed"
sleep 5
running node || fail "it ended while the API server hung"
apiserver_resume
await 30 "the new name in the Secret" device_is_published node
stop node
