# The account's token is replaced and the old one refused: the next write uses the new one.
# personas: containerboot boot
# original: no, the first refused write ends it (boot.md W14)
service_account node
start node "${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node"
ready node
await 5 "the device keys" device_is_published node
# A new account of the same name: tokens are bound to the old one's uid.
kubectl delete serviceaccount node -n "$NS" >/dev/null
kubectl create serviceaccount node -n "$NS" >/dev/null
(umask 077 && echo "Authorization: Bearer $(cat "$CASE/node/serviceaccount/token")" >"$CASE/old.header")
service_token node
# The API server remembers for 10 s that a token was good.
refused() {
  [ 401 = "$(curl -sS --max-time 5 --cacert "$LAB/pki/apiserver.crt" -H @"$CASE/old.header" -o /dev/null -w '%{http_code}' \
    "https://127.0.0.1:$KUBE_PORT/api/v1/namespaces/$NS/secrets/node")" ]
}
await 20 "the old token to be refused" refused
control POST "/nodes/$(node_id node)/rename?name=$NS-renamed"
await 10 "the node to hear its new name" is_named node "$NS-renamed"
await 30 "the new name in the Secret" device_is_published node
stop node
