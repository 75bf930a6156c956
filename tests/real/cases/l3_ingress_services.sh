# M7: the address of a Service of the tailnet leads to an address of the cluster, over every protocol and port, in both
# families (ha-services.md 10, scenario 20).
# personas: containerboot boot
. "$HERE/netns.sh"
for backend in $backends; do
  scene "$backend" b1 b2
  no_icmp_errors
  in_kubernetes
  mounted ingress-config.json <<JSON
{"svc:web": {"IPv4Mapping": {"TailscaleServiceIP": "100.100.1.1", "ClusterIP": "${backend4}1"},
             "IPv6Mapping": {"TailscaleServiceIP": "fd7a:115c:a1e0:aa::1", "ClusterIP": "${backend6}1"}},
 "svc:db": {"IPv4Mapping": {"TailscaleServiceIP": "100.100.1.2", "ClusterIP": "${backend4}2"}}}
JSON
  pod_start "${kube_env[@]}" TS_INGRESS_PROXIES_CONFIG_PATH="$CASE/proxies/ingress-config.json"
  await 10 "the status" secret_has pod ingress-config.json
  carries peer 100.100.1.1 80 b1 $pod4
  carries peer fd7a:115c:a1e0:aa::1 80 b1 $pod6
  carries peer 100.100.1.2 80 b2 $pod4
  is "the status" "$(secret pod ingress-config.json | jq -cS .)" \
    "$(jq -cS '{configs: ., podIPv4: "'$pod4'", podIPv6: "'$pod6'"}' "$CASE/proxies/ingress-config.json")"
  stop pod
done
