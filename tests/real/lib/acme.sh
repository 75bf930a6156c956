# shellcheck shell=bash
# A certificate authority that issues for real: Pebble, the DNS server that it asks, and the shim before it. For the
# cases in which tailscaled gets a certificate itself, beside lib/proxy.sh.

# acme_start [LIFETIME [BLOCKED...]]: nodes and proxies that are started afterwards order their certificates here. These
# are good for so many seconds, and none is issued for the blocked domains.
acme_start() {
  local dns tell pebble lifetime=${1:-7776000}
  shift $(($# > 0))
  authority
  certificate localhost "$CASE/acme"
  dns=$(lab_port) tell=$(lab_port) pebble=$(lab_port) acme_admin=$(lab_port)
  subject=("$BIN/pebble-challtestsrv" -http01 "" -https01 "" -tlsalpn01 "" -doh ""
    -dnsserver "127.0.0.1:$dns" -management "127.0.0.1:$tell")
  start challenges
  control PUT "/challenges?url=http://127.0.0.1:$tell"
  # Of more than one profile it takes any for who asks for none.
  jq -n --arg pebble "127.0.0.1:$pebble" --arg admin "127.0.0.1:$acme_admin" --arg dir "$CASE/acme" --argjson lifetime "$lifetime" '{pebble: {
    listenAddress: $pebble, managementListenAddress: $admin, domainBlocklist: $ARGS.positional,
    certificate: "\($dir)/localhost.crt", privateKey: "\($dir)/localhost.key",
    keyAlgorithm: "ecdsa", retryAfter: {authz: 1, order: 1}, profiles: {
      (if $lifetime < 864000 then "shortlived" else "default" end): {description: "", validityPeriod: $lifetime}}}}' \
    --args "$@" >"$CASE/acme/config.json"
  acme_dns=127.0.0.1:$dns
  acme_run
  subject=("$BIN/shim" "$CASE/acme/localhost.crt" "$CASE/acme/localhost.key" "127.0.0.1:$pebble")
  start shim
  await 5 "the shim" grep -q '^{' "${log[shim]}"
  # A variable of its own: the port is not in the certificate, but the name has to be.
  acme_env=(TS_DEBUG_ACME_DIRECTORY_URL="https://localhost:$(grep -m 1 '^{' "${log[shim]}" | jq .port)/dir")
  shim_admin=http://127.0.0.1:$(grep -m 1 '^{' "${log[shim]}" | jq .admin)
}

# acme_run: the authority alone; again, after acme_kill. It has then forgotten accounts, orders and certificates, and
# issues with another key.
acme_run() {
  subject=("$BIN/pebble" "$CASE/acme/config.json" "$acme_dns")
  start pebble PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0 PEBBLE_AUTHZREUSE=0
  await 10 "the authority" acme_root
}

acme_kill() {
  kill -KILL "${pid[pebble]}"
  wait "${pid[pebble]}" 2>/dev/null || true
}

# acme_root: what it issues with is made anew at each start; the clients trust it too.
acme_root() {
  curl -fsS --max-time 5 --cacert "$CASE/ca.crt" "https://localhost:$acme_admin/roots/0" >"$CASE/acme/root.crt" &&
    cat "$CASE/acme/root.crt" >>"$CASE/ca.crt"
}

# issued: how many orders have been fulfilled.
issued() { grep -c 'Issued certificate serial' "${log[pebble]}" || true; }

# trouble QUERY: what the shim does instead of passing requests on (acme/shim/trouble.go); no_trouble ends it.
trouble() { curl -fsS --max-time 10 -X PUT "$shim_admin/trouble?$1"; }
no_trouble() { curl -fsS --max-time 10 -X DELETE "$shim_admin/trouble"; }

# ordered FILTER: how many of the requests for orders, and for their certificates, pass this jq filter.
ordered() { curl -fsS --max-time 10 "$shim_admin/log" | jq "[.[] | select($1)] | length"; }
# orders DOMAIN: how many orders the authority took for it; fulfilled DOMAIN: how many certificates it gave.
orders() { ordered ".path == \"/order-plz\" and .name == \"$1\" and .state == \"201\""; }
fulfilled() { ordered ".path == \"/finalize-order/\" and .name == \"$1\" and .state == \"200\""; }
# held PATH: a request for it waits in the shim.
held() { [ "$(ordered ".path == \"$1\" and .state == \"held\"")" != 0 ]; }

# due CERTIFICATE: whoever asks the authority is told that it should be renewed by now.
due() {
  jq -n --rawfile pem "$1" '{Certificate: $pem, ARIResponse:
    ({suggestedWindow: {start: "2020-01-01T00:00:00Z", end: "2020-01-02T00:00:00Z"}} | tojson)}' |
    curl -fsS --max-time 10 --cacert "$CASE/ca.crt" --data-binary @- "https://localhost:$acme_admin/set-renewal-info/"
}
