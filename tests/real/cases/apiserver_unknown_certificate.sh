# A certificate that ca.crt does not vouch for is refused: nothing is sent to a stranger.
# personas: containerboot boot
service_account node
openssl req -x509 -newkey rsa:2048 -nodes -keyout /dev/null -subj /CN=stranger -days 1 \
  -out "$CASE/node/serviceaccount/ca.crt" 2>/dev/null
start node "${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node" TS_BOOT_TIMEOUT=5s
exits node 1
is "number of reads" "$(requests node get)" 0
