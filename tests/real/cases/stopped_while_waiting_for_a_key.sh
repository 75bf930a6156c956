# SIGTERM while the operator takes its time.
# personas: containerboot boot
# original: no, it reports the stop as a timeout and exits 1 (boot.md W9)
# takes: 15
service_account node
make_secret node foreign=kept
config node "AuthKey: \"$(dead_key)\""
start node "${in_cluster[@]}" TS_KUBE_SECRET=node TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR="$CASE/node-config"
await_said node "Waiting for operator to provide new auth key" 45
stop node
