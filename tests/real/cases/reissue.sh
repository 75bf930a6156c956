# The operator's repair, whole: a dead key, the request for another in the Secret, the new key
# through the mounted config, an orderly end without the old identity, a start that works.
# personas: containerboot boot
# takes: 15
service_account node
make_secret node foreign=kept
dead=$(dead_key)
config node "AuthKey: \"$dead\""
env=("${in_cluster[@]}" TS_KUBE_SECRET=node TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR="$CASE/node-config" POD_NAME=node POD_UID=uid-1)
start node "${env[@]}"
await 45 "the request for a new key" secret_is node reissue_authkey "$dead"
await_said node "Requesting a new auth key from operator"

# What the operator does: a new key in the config Secret, which the kubelet mounts.
config node "AuthKey: \"$(auth_key once)\""
exits node 0 20
said node "Successfully received new auth key, restarting to apply configuration"
for key in reissue_authkey device_id _machinekey _current-profile _profiles; do
  ! secret_has node "$key" || fail "$key is still in the Secret"
done
is foreign "$(secret node foreign)" kept

# What the kubelet does.
start node "${env[@]}"
ready node
await 5 "the device keys" device_is_published node
stop node
