# shellcheck shell=bash
# L3 proxying. 1,000 egress Services: how long from the new file to the last rule, in how many transactions, the memory
# with them, and one that changes. Then the CPU time that 20 changes of peers a second cost who waits for one name among
# 5,000 peers.
. "$(dirname "$1")/subjects.sh"
. "$HERE/netns.sh"
SERVICES=${SERVICES:-1000}

# services TARGET_PORT COUNT: the first of them leads to that port.
services() {
  jq -nc --argjson port "$1" --argjson count "$2" --arg ip $peer4 '[range($count) | {key: "default-service-\(.)", value: {
    healthCheckEndpoint: "", tailnetTarget: {ip: $ip, fqdn: ""},
    ports: [{protocol: "TCP", matchPort: (10000 + .), targetPort: (if . == 0 then $port else 80 end)}]}}] | from_entries' |
    mounted egress-services
}
# changed SUBJECT MEASURE MODE TARGET_PORT COUNT: writes the file; nothing more happens 3 s after the last rule.
changed() {
  local began generation
  at_start pod load-generation generation
  # What is counted from: the moment at which the file is there.
  services "$4" "$5"
  began=$(stat -c %.6Z "$CASE/proxies/..data" | tr -d .)
  quiet "$5" "$4"
  at_end load-generation
  generation=$(tail -n 1 "$CASE/load-generation.out")
  result "$2" "$1" "$3" "$(jq "(.Last - $began) / 1000" <<<"$generation")"
  result "$2-transactions" "$1" "$3" "$(jq .Transactions <<<"$generation")"
}
quiet() {
  await 300 "service $(($1 - 1))" all_reported "$1" "$2"
  sleep 1
}
all_reported() {
  [ "$(secret pod egress-services | jq -c '[(.services | length), .services["default-service-0"].ports[0].targetPort]')" = "[$1,$2]" ]
}

egress() {
  local who=$1 backend=$2 round
  become "$who"
  netns_start
  backend "$backend"
  in_kubernetes
  services 80 1
  pod_start "${kube_env[@]}" TS_EGRESS_PROXIES_CONFIG_PATH="$CASE/proxies"
  await 10 "the status" secret_has pod egress-services
  changed "$who" l3-apply "$SERVICES-$backend" 80 "$SERVICES"
  sleep "$SETTLE"
  result l3-memory "$who" "$SERVICES-$backend" "$(awk '$1 == "VmRSS:" { print $2 * 1024 }' "/proc/${pid[pod]}/status")"
  for round in 1 2 3; do
    changed "$who" l3-change "$SERVICES-$backend" $((8000 + round)) "$SERVICES"
  done
  stop pod
}
for backend in nftables iptables-nft; do
  for who in "${subjects[@]}"; do egress "$who" "$backend"; done
done
netns_end
rm "$CASE/bin/tailscaled" "$CASE/bin/"ip*tables*

# In milliseconds, user and system.
cpu() { awk -v hz="$(getconf CLK_TCK)" '{ print ($14 + $15) * 1000 / hz }' "/proc/${pid[$1]}/stat"; }
# The in-memory server takes peers once it has had a node.
become original
start first "${up[@]}" TS_AUTHKEY="$(auth_key)" TS_STATE_DIR="$CASE/first-state"
ready first 60
stop first
control POST "/peers?count=$PEERS"
for who in "${subjects[@]}"; do
  become "$who"
  start "$who" "${up[@]}" TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-$who" TS_STATE_DIR="$CASE/$who-state" TS_USERSPACE=false \
    TS_DEBUG_FIREWALL_MODE=nftables TS_TAILNET_TARGET_FQDN=peer-00007.lab.ts.net
  ready "$who" 60
  sleep "$SETTLE"
  before=$(cpu "$who")
  # What tailscaled makes of it is counted too: a load that does not arrive measures nothing.
  curl -sSN --max-time $((SECONDS_OF_LOAD + 2)) --unix-socket "$CASE/$who/tailscaled.sock" \
    'http://local-tailscaled.sock/localapi/v0/watch-ipn-bus?mask=4096' 2>/dev/null >"$CASE/bus" &
  watch=$!
  curl -fsS --max-time $((SECONDS_OF_LOAD + 30)) -X POST \
    "$CONTROL_ADMIN/nodes/$(node_id "$who")/peer-changes?rate=20&seconds=$SECONDS_OF_LOAD" >/dev/null
  after=$(cpu "$who")
  wait "$watch" || true
  heard=$(grep -c '"PeersChanged":\[' "$CASE/bus" || true)
  [ "$heard" -ge $((SECONDS_OF_LOAD * 15)) ] || fail "tailscaled reported only $heard changes"
  result l3-cpu "$who" "${SECONDS_OF_LOAD}s" "$(jq -n "$after - $before")"
  result l3-cpu-memory "$who" "${PEERS}peers" "$(awk '$1 == "VmRSS:" { print $2 * 1024 }' "/proc/${pid[$who]}/status")"
  stop "$who"
  nft flush ruleset
done
