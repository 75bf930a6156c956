# Rules change under 1,000 connections with 10,000 packets a second, with 200 new ones a second beside them: nothing is
# lost, nothing refused (netfilter.md 14, scenario 16).
# personas: containerboot boot
# original: no, it does not apply in one transaction (netfilter.md N5)
# limit: 240
. "$HERE/netns.sh"
# services COUNT SEED: `kept` as it is, and so many others, which differ with the seed.
services() {
  jq -n --argjson count "$1" --argjson seed "$2" --arg ip $peer4 '
    {kept: {healthCheckEndpoint: "", tailnetTarget: {ip: $ip, fqdn: ""}, ports: [
       {protocol: "TCP", matchPort: 10000, targetPort: 80}, {protocol: "UDP", matchPort: 10000, targetPort: 80}]}}
    + ([range($count) | {key: "other-\(. + $seed % 7)", value: {healthCheckEndpoint: "", tailnetTarget: {ip: $ip, fqdn: ""},
        ports: [{protocol: "TCP", matchPort: (10001 + . + $seed % 5), targetPort: (80 + $seed % 3)}]}}] | from_entries)' |
    mounted egress-services
}
# unharmed CHANGES: what the load has come to.
unharmed() {
  kill -TERM "${pid[load]}"
  wait "${pid[load]}" || true
  echo "$backend: $1 changes: $(tail -n 1 "$CASE/load.out")" >&2
  is "what was lost" "$(tail -n 1 "$CASE/load.out" | jq -c '[.Lost, .Broken, .Refused]')" "[0,0,0]"
  [ "$(tail -n 1 "$CASE/load.out" | jq .Rate)" -ge 9000 ] || fail "not as many packets as there should be"
}
for backend in $backends; do
  netns_start
  served peer 80
  for number in 1 2 3; do served "b$number" 80; done
  backend "$backend"
  tailscaled_rules "$backend"
  in_kubernetes
  services 20 0
  pod_start "${kube_env[@]}" TS_EGRESS_PROXIES_CONFIG_PATH="$CASE/proxies"
  await 10 "the service" is_answered client tcp $pod4 10000 "peer $own4"
  at_start client load load $pod4:10000
  for ((change = 1; change <= 30; change++)); do
    services $((20 + change % 4)) "$change"
    sleep 0.4
  done
  unharmed "$change"
  # The rules did change.
  await 5 "the last change" is_answered client tcp $pod4 $((10001 + 30 % 5)) ""
  [ "$(ours | grep -c .)" -gt 5 ] || fail "no rules"
  stop pod

  # The other way: the node's second address comes and goes, and the rules with it.
  pod_start TS_DEST_IP="${backend4}1"
  await 10 "the backend" is_answered peer tcp $own4 80 "b1 $pod4"
  at_start peer load load $own4:80
  for ((change = 1; change <= 30; change++)); do
    case $((change % 2)) in
    0) believes ;;
    1) believes 'self: {ips: ["'$own4'", "'$own6'", "100.64.0.3"]}' ;;
    esac
    sleep 0.3
  done
  unharmed "$change"
  stop pod
done
