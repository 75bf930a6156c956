# A config that needs HTTPS is held back while the tailnet has none, with the reason, and the one before stays; it is
# applied when HTTPS is switched on, without anybody touching the file.
# personas: containerboot boot
# original: no, it forgets a config that it held back
. "$HERE/proxy.sh"
. "$HERE/acme.sh"
. "$HERE/certs.sh"
acme_start
viewer_start
# Not a page: tailscaled orders a certificate for the name of any, also of one on HTTP.
echo '{"TCP": {"80": {"TCPForward": "127.0.0.1:9"}}}' >"$CASE/serve.json"
pod node "${up[@]}" "${acme_env[@]}" SSL_CERT_FILE="$CASE/ca.crt" TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node" \
  TS_STATE_DIR="$CASE/state" TS_SERVE_CONFIG="$CASE/serve.json"
ready node
applied() { localapi node serve-config | jq -c '.TCP | keys'; }
is_applied() { [ "$(applied)" = "$1" ]; }
await 10 "the first config" is_applied '["80"]'
control POST "/nodes/$(node_id node)/https?off"
https_is_off() { [ "$(localapi node cert-domains)" = null ]; }
await 5 "HTTPS to be off" https_is_off
sleep 1 # who follows the node hears of it a moment later

serve_config "$CASE/serve.json" "$NS-node.lab.ts.net"
await_said node "HTTPS" 10
sleep 2
is "ports" "$(applied)" '["80"]'
is "orders" "$(ordered true)" 0
control POST "/nodes/$(node_id node)/https"
await 20 "the config with HTTPS" is_applied '["443"]'
is_served() { [ -n "$(served node "$NS-node.lab.ts.net")" ]; }
await 20 "the page" is_served
