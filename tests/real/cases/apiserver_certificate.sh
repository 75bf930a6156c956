# An API server whose serving certificate is its own root: ca.crt holds that very certificate.
# personas: containerboot boot
service_account node
echo | openssl s_client -connect "127.0.0.1:$KUBE_PORT" 2>/dev/null | openssl x509 -outform PEM >"$CASE/served.crt"
cp "$CASE/served.crt" "$CASE/node/serviceaccount/ca.crt"
start node "${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node"
ready node
await 5 "the device keys" device_is_published node
stop node
