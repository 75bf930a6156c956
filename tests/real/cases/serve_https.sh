# TS_SERVE_CONFIG names its domain by a placeholder, and the page is on HTTPS for the other nodes of the tailnet, with a
# certificate that the authority gave. Another config is heard of while it runs.
# personas: containerboot boot
. "$HERE/proxy.sh"
. "$HERE/acme.sh"
. "$HERE/certs.sh"
acme_start
viewer_start
# shellcheck disable=SC2016 # the placeholder of the config
serve_config "$CASE/serve.json" '${TS_CERT_DOMAIN}'
pod node "${up[@]}" "${acme_env[@]}" SSL_CERT_FILE="$CASE/ca.crt" TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node" \
  TS_STATE_DIR="$CASE/state" TS_SERVE_CONFIG="$CASE/serve.json"
ready node
own=$service_domain # the first of the list
page() { curl -sS --max-time 5 --cacert "$CASE/ca.crt" --proxy "socks5://127.0.0.1:$client_port" --resolve "$own:443:$to" "https://$own/"; }
to=$(node node '.TailscaleIPs[0]')
says() { [ "$(page)" = "$1" ]; }
await 20 "the page" says hello
is "orders" "$(orders "$own") of $(issued)" "1 of 1"
jq '.Web[].Handlers["/"].Text = "good bye"' "$CASE/serve.json" >"$CASE/serve.json.new"
mv "$CASE/serve.json.new" "$CASE/serve.json"
await 20 "the other page" says "good bye"
is "orders" "$(orders "$own") of $(issued)" "1 of 1"
stop node
