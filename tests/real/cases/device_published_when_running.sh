# A device that still waits for approval is not announced to anybody.
# personas: containerboot boot
service_account node
make_secret node foreign=kept
start node "${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node TS_AUTHKEY="$(auth_key unapproved)" TS_HOSTNAME="$NS-node"
waits_for_approval() { [ "$(node node .BackendState 2>/dev/null)" = NeedsMachineAuth ]; }
await 20 "the node to wait for approval" waits_for_approval
sleep 1
for key in device_id device_fqdn device_ips; do
  ! secret_has node "$key" || fail "$key was written before the node runs"
done

control POST "/nodes/$(node_id node)/approve"
ready node
await 5 "the device keys" device_is_published node
stop node
