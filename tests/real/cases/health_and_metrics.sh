# The health endpoint follows the node; metrics are there from the beginning.
# personas: containerboot boot
port=$(lab_port)
http() { curl -sS --max-time 5 -o /dev/null -w '%{http_code}' "http://127.0.0.1:$port$1"; }
answers() { [ "$(http "$1" 2>/dev/null)" = "$2" ]; }
start node "${up[@]}" TS_STATE_DIR="$CASE/state" TS_HOSTNAME="$NS-node" POD_IPS=192.0.2.7 \
  TS_ENABLE_HEALTH_CHECK=true TS_ENABLE_METRICS=true TS_LOCAL_ADDR_PORT="127.0.0.1:$port"
await_said node "$CONTROL/auth/"
is /healthz "$(http /healthz)" 503
is /metrics "$(http /metrics)" 200
control POST "/login?url=$(grep -oE "$CONTROL/auth/[0-9a-f]+" "${log[node]}" | head -n 1)"
ready node
await 5 "/healthz to be 200" answers /healthz 200
curl -sS -i "http://127.0.0.1:$port/healthz" | grep -qi '^pod-ipv4: 192.0.2.7' || fail "no Pod-IPv4 header"
curl -sS "http://127.0.0.1:$port/metrics" | grep -q '^tailscaled_' || fail "no metrics of tailscaled"
stop node
