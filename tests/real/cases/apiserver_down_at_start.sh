# The API server comes up some seconds after the Pod: the start waits for it.
# personas: containerboot boot
# original: no, it exits 1 at once (boot.md W14)
service_account node
make_secret node foreign=kept
apiserver_kill
start node "${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node"
sleep 2
running node || fail "it did not wait for the API server"
apiserver_start
ready node
await 5 "the device keys" device_is_published node
stop node
