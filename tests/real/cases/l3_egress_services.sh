# M6: ports of the Pod lead to ports of the tailnet, for whoever is in the cluster (netfilter.md 14, scenario 15; 12: M6).
# What the operator reads of it is in the Secret, and is there after the rules (ha-services.md 10, scenario 1).
# personas: containerboot boot
# takes: 15
. "$HERE/netns.sh"
for backend in $backends; do
  scene "$backend" peer:80:53
  no_icmp_errors
  in_kubernetes
  mounted egress-services <<JSON
{"default-web": {"healthCheckEndpoint": "", "tailnetTarget": {"ip": "", "fqdn": "web.lab.ts.net"}, "ports": [
   {"protocol": "TCP", "matchPort": 10001, "targetPort": 80}, {"protocol": "UDP", "matchPort": 10001, "targetPort": 80}]},
 "prod-dns": {"healthCheckEndpoint": "", "tailnetTarget": {"ip": "$peer4", "fqdn": ""}, "ports": [
   {"protocol": "UDP", "matchPort": 10002, "targetPort": 53}]}}
JSON
  pod_start "${kube_env[@]}" TS_EGRESS_PROXIES_CONFIG_PATH="$CASE/proxies"
  await 10 "the status" secret_has pod egress-services
  for to in "$pod4 $own4" "$pod6 $own6"; do
    read -r pod own <<<"$to"
    # The original's rule for iptables has no brackets around the address, and so another address.
    if original && [ "$backend" != nftables ] && [ "$pod" = $pod6 ]; then continue; fi
    answers client tcp "$pod" 10001 "peer $own"
    answers client udp "$pod" 10001 "peer $own"
    bulk client "$pod" 10001
    refused client tcp "$pod" 10002
    pings client "$pod" pod
  done
  answers client udp $pod4 10002 "peer $own4"
  refused client udp $pod6 10002
  secret pod egress-services | jq -S '.services[].ports |= sort_by(.protocol)' >"$CASE/status"
  jq -nS '{podIPv4: "'$pod4'", podIPv6: "'$pod6'", services: {
    "default-web": {ports: [{protocol: "TCP", matchPort: 10001, targetPort: 80}, {protocol: "UDP", matchPort: 10001, targetPort: 80}],
      tailnetTargetIPs: ["'$peer4'", "'$peer6'"], tailnetTarget: {ip: "", fqdn: "web.lab.ts.net"}},
    "prod-dns": {ports: [{protocol: "UDP", matchPort: 10002, targetPort: 53}],
      tailnetTargetIPs: ["'$peer4'"], tailnetTarget: {ip: "'$peer4'", fqdn: ""}}}}' | diff - "$CASE/status" || fail "another status"
  stop pod
done
