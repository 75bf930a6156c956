# What tailscaled serves is what the file says, with the node's name in it, also after an edit; an edit that is none
# changes nothing.
# personas: containerboot boot
# original: no, it ends with the edit that is none

# served FILTER WANT: what tailscaled says it serves.
served() { [ "$(localapi node serve-config | jq -c "$1")" = "$2" ]; }

# serve TEXT: as the kubelet changes a ConfigMap.
serve() {
  local dir=$CASE/serve version
  version=..$(date +%s%N)
  mkdir -p "$dir/$version"
  printf %s "$1" >"$dir/$version/config.json"
  ln -sfn "$version" "$dir/..data_tmp"
  mv -T "$dir/..data_tmp" "$dir/..data"
  [ -e "$dir/config.json" ] || ln -s ..data/config.json "$dir/config.json"
}
# shellcheck disable=SC2016 # the placeholder is for tailpod
text() {
  printf '{"TCP": {"8443": {"HTTPS": true}}, "Web": {"${TS_CERT_DOMAIN}:8443": {"Handlers": {"/": {"Text": "%s"}}}}}' "$1"
}

serve "$(text one)"
service_account node
start node "${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node" \
  TS_SERVE_CONFIG="$CASE/serve/config.json"
ready node
domain=$(localapi node dns-config | jq -r '.CertDomains[0]')
wanted() { echo "{\"TCP\":{\"8443\":{\"HTTPS\":true}},\"Web\":{\"$domain:8443\":{\"Handlers\":{\"/\":{\"Text\":\"$1\"}}}}}"; }
await 20 "the first config" served . "$(wanted one)"
await 20 "https_endpoint" secret_is node https_endpoint "$domain"
serve "$(text two)"
await 20 "the second config" served . "$(wanted two)"
serve '{"TCP": {"8443":'
sleep 1
running node || fail "it ended with the bad edit"
served . "$(wanted two)" || fail "the bad edit changed what is served"
# The daemon refuses to make another kind of handler of a port in one step.
serve '{"TCP": {"8443": {"TCPForward": "localhost:1"}}}'
await 20 "a port of another kind" served . '{"TCP":{"8443":{"TCPForward":"localhost:1"}}}'
stop node
