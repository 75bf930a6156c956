# SIGTERM in steady state, with state in a Secret that has to be consistent when tailscaled ends.
# personas: containerboot boot
service_account node
start node "${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node"
ready node
kill -TERM "${pid[node]}"
exits node 0
said node "Checking for consistent state"
said node "Sending SIGTERM to tailscaled"
said node "tailscaled exited"
for key in _machinekey _current-profile _profiles; do
  secret_has node "$key" || fail "$key is not in the Secret"
done
