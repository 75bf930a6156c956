# The config while it runs: replaced by a rename, bad for a while, with the Service off and on again.
# personas: k8s-proxy
# original: no, a file that is renamed over its config goes unnoticed, and bad content ends it (api-proxy.md 9.1)
# takes: 20
. "$HERE/proxy.sh"
port=$(lab_port)
proxy_env=(POD_IP=127.0.0.1 "${soon_withdrawn[@]}")
local="healthCheckEnabled: true, metricsEnabled: true, localPort: $port"
grants "$(groups lab:admins)"
proxy_start auth "$local"
client_start
admins
await 15 "the proxy to answer" reaches
counted() { curl -sS --max-time 5 "http://127.0.0.1:$port/metrics" | grep -qx "tailpod_proxy_config_reload_errors_total $1"; }

echo '{"version": "v1alpha1", "hostname": oops}' >"$CASE/proxy.hujson"
await_said proxy "line 1, column 37" 10
await 5 "the count" counted 1
running proxy || fail "bad content ended it"
reaches || fail "bad content ended its service"

id=$(node_id_of proxy)
# shellcheck disable=SC2016 # expands in jq
proxy_config "$local"', hostname: "\($host)-named"'
await 10 "the new name" is_node proxy-named
is "the device" "$(node_id_of proxy-named)" "$id"

# shellcheck disable=SC2016 # expands in jq
off="$local"', hostname: "\($host)-named", advertiseServices: [], apiServerProxy: {enabled: false, mode: $mode}'
unreachable() { ! reaches 2>/dev/null; }
proxy_config "$off"
await 10 "the Service to go" unreachable
# shellcheck disable=SC2016 # expands in jq
proxy_config "$local"', hostname: "\($host)-named"'
await 15 "the Service again" reaches
counted 1 || fail "a good config was counted as bad"
k get namespace "$NS" >/dev/null
seen_as "$(login client)" lab:admins
kill -TERM "${pid[proxy]}"
exits proxy 0 40
