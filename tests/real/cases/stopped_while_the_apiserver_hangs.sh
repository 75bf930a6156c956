# SIGTERM while the first answer of the API server is awaited.
# personas: containerboot boot
# original: no, it exits 1 (boot.md W9)
service_account node
make_secret node foreign=kept
apiserver_pause
start node "${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node"
sleep 1
stop node
