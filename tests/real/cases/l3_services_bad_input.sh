# What cannot be read or makes no sense takes nothing down: what was good last stays until something good follows, and of a
# file the good entries count (ha-services.md 10, scenarios 13, 14, 22, 28; netfilter.md 14, scenario 26).
# personas: boot
# original: no, it ends (ha-services.md H6, H8)
# takes: 20
. "$HERE/netns.sh"
for backend in $backends; do
  scene "$backend" peer b1
  in_kubernetes
  egress_service web 10001 | mounted egress-services
  jq -n '{"svc:web": {IPv4Mapping: {TailscaleServiceIP: "100.100.1.1", ClusterIP: "'${backend4}1'"},
                      IPv6Mapping: {TailscaleServiceIP: "", ClusterIP: "'${backend6}1'"}}}' | mounted ingress-config.json
  pod_start "${kube_env[@]}" TS_EGRESS_PROXIES_CONFIG_PATH="$CASE/proxies" \
    TS_INGRESS_PROXIES_CONFIG_PATH="$CASE/proxies/ingress-config.json"
  await 10 "the egress Service" is_answered client tcp $pod4 10001 "peer $own4"
  await 10 "the ingress Service" is_answered peer tcp 100.100.1.1 80 "b1 $pod4"
  await 10 "the status with an empty address" eval '[ "$(secret pod ingress-config.json | jq -c ".configs[\"svc:web\"].IPv6Mapping.TailscaleServiceIP")" = "\"\"" ]'
  before=$(ours)
  for text in '{' '[]' '"web"' nonsense; do
    printf %s "$text" | mounted egress-services
    sleep 0.7
    running pod || fail "it ends with $text"
    answers client tcp $pod4 10001 "peer $own4"
  done
  is "rules" "$(ours)" "$before"

  # A name is text and nothing else, whatever is in it.
  for name in $'quo"te\'$(reboot)\nadd table ip evil' "$(printf 'x%.0s' {1..200})" 'a.b_c' 'ünïcode' '-j ACCEPT; #' ''; do
    egress_service "$name" 10002 | mounted egress-services
    await 10 "a Service called $name" is_answered client tcp $pod4 10002 "peer $own4"
    is "tables of $name" "$(rules | grep -c evil || true)" "$(ours | grep -c evil || true)"
    egress_service web 10001 | mounted egress-services
    await 10 "its end" is_answered client tcp $pod4 10002 ""
  done

  # The first by name has a port that two want; one that makes no sense is left out, alone.
  jq -n --arg ip $peer4 '
    def service($ports): {healthCheckEndpoint: "", tailnetTarget: {ip: $ip, fqdn: ""}, ports: $ports};
    {b: service([{protocol: "TCP", matchPort: 10003, targetPort: 81}]), a: service([{protocol: "TCP", matchPort: 10003, targetPort: 80}]),
     c: service([{protocol: "SCTP", matchPort: 10004, targetPort: 80}]), d: service([{protocol: "TCP", matchPort: 10005, targetPort: 80}]),
     e: {healthCheckEndpoint: "", tailnetTarget: {ip: "", fqdn: ""}, ports: []},
     f: {healthCheckEndpoint: "", tailnetTarget: {ip: "nonsense", fqdn: ""}, ports: [{protocol: "TCP", matchPort: 10006, targetPort: 80}]}}' |
    mounted egress-services
  await 10 "the good ones" is_answered client tcp $pod4 10005 "peer $own4"
  answers client tcp $pod4 10003 "peer $own4"
  refused client tcp $pod4 10006
  running pod || fail "it ended"
  stop pod
done
