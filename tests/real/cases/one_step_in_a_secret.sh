# What the operator runs: a config file and a Secret.
# personas: containerboot boot
service_account node
config node "AuthKey: \"$(auth_key once)\""
env=("${in_cluster[@]}" TS_KUBE_SECRET=node TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR="$CASE/node-config" POD_NAME=node POD_UID=uid-1)
make_secret node https_endpoint=stale
start node "${env[@]}"
ready node
await 5 "the device keys" device_is_published node
! secret_has node https_endpoint || fail "the stale https_endpoint is still there"
id=$(node_id node)
stop node

# The key is used up by now; the identity in the Secret is enough.
start node "${env[@]}"
ready node
is id "$(node_id node)" "$id"
stop node
