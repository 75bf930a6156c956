# shellcheck shell=bash
# A certificate authority that issues for real: Pebble, the DNS server that it asks, and the shim before it. For the
# cases in which tailscaled gets a certificate itself, beside lib/proxy.sh.

# acme_start: nodes and proxies that are started afterwards order their certificates here.
acme_start() {
  local dns tell pebble admin
  authority
  certificate localhost "$CASE/acme"
  dns=$(lab_port) tell=$(lab_port) pebble=$(lab_port) admin=$(lab_port)
  subject=("$BIN/pebble-challtestsrv" -http01 "" -https01 "" -tlsalpn01 "" -doh ""
    -dnsserver "127.0.0.1:$dns" -management "127.0.0.1:$tell")
  start challenges
  control PUT "/challenges?url=http://127.0.0.1:$tell"
  jq -n --arg pebble "127.0.0.1:$pebble" --arg admin "127.0.0.1:$admin" --arg dir "$CASE/acme" '{pebble: {
    listenAddress: $pebble, managementListenAddress: $admin,
    certificate: "\($dir)/localhost.crt", privateKey: "\($dir)/localhost.key",
    httpPort: 5002, tlsPort: 5001, ocspResponderURL: "", externalAccountBindingRequired: false, keyAlgorithm: "ecdsa",
    retryAfter: {authz: 1, order: 1}, profiles: {default: {description: "", validityPeriod: 7776000}}}}' >"$CASE/acme/config.json"
  subject=("$BIN/pebble" -config "$CASE/acme/config.json" -dnsserver "127.0.0.1:$dns")
  start pebble PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0
  subject=("$BIN/shim" "$CASE/acme/localhost.crt" "$CASE/acme/localhost.key" "127.0.0.1:$pebble")
  start shim
  await 5 "the shim" grep -q '^{' "${log[shim]}"
  await 10 "the authority" acme_root "$admin"
  # A variable of its own: the port is not in the certificate, but the name has to be.
  acme_env=(TS_DEBUG_ACME_DIRECTORY_URL="https://localhost:$(grep -m 1 '^{' "${log[shim]}" | jq .port)/dir")
}

# acme_root PORT: what it issues with is made anew at each start; the clients trust it too.
acme_root() {
  curl -fsS --max-time 5 --cacert "$CASE/ca.crt" "https://localhost:$1/roots/0" >"$CASE/acme/root.crt" &&
    cat "$CASE/acme/root.crt" >>"$CASE/ca.crt"
}

# issued: how many orders have been fulfilled.
issued() { grep -c 'Issued certificate serial' "${log[pebble]}" || true; }
