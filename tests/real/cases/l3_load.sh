# Rules change under 1,000 connections with 10,000 packets a second, with 200 new ones a second beside them: nothing is
# lost, nothing refused (netfilter.md 14, scenario 16).
# personas: boot
# original: no, it does not apply in one transaction (netfilter.md N5)
# limit: 240
# takes: 55
# nice: -10
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
for backend in $backends; do
  scene "$backend" peer
  in_kubernetes
  services 20 0
  pod_start "${kube_env[@]}" TS_EGRESS_PROXIES_CONFIG_PATH="$CASE/proxies"
  await 10 "the service" is_answered client tcp $pod4 10000 "peer $own4"
  at_start client load-all load $pod4:10000
  for ((change = 1; change <= 30; change++)); do
    services $((20 + change % 4)) "$change"
    sleep 0.4
  done
  unharmed "$change"
  # The rules did change.
  await 5 "the last change" is_answered client tcp $pod4 10001 "peer $own4"
  [ "$(ours | grep -c .)" -gt 5 ] || fail "no rules"
  stop pod
done
