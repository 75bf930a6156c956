# HTTPS is held back while the tailnet has none, and served when it has, without another edit.
# personas: containerboot boot
# original: no, it never looks again at a config that it held back, nor at https_endpoint
served() { [ "$(localapi node serve-config | jq -c "$1")" = "$2" ]; }
echo '{"TCP": {"8080": {"HTTP": true}}}' >"$CASE/config.json"
service_account node
start node "${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node" \
  TS_SERVE_CONFIG="$CASE/config.json"
ready node
await 20 "the first config" served .TCP '{"8080":{"HTTP":true}}'
id=$(node_id node)
control POST "/nodes/$id/https?off"
no_domains() { [ "$(localapi node dns-config | jq -c '.CertDomains // []')" = '[]' ]; }
await 20 "a tailnet without HTTPS" no_domains
await 30 "boot to hear of it" secret_is node https_endpoint no-https
echo '{"TCP": {"8443": {"HTTPS": true}}}' >"$CASE/config.json"
await_said node "HTTPS is not enabled for this tailnet" 20
served .TCP '{"8080":{"HTTP":true}}' || fail "it was served all the same"
secret_is node https_endpoint no-https || fail "https_endpoint is $(secret node https_endpoint)"
control POST "/nodes/$id/https"
await 30 "HTTPS" served .TCP '{"8443":{"HTTPS":true}}'
stop node
