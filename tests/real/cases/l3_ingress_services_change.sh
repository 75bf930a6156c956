# The address behind a Service of the tailnet changes while clients come: none is refused, and soon all reach the new one
# (ha-services.md 10, scenarios 21 and 23).
# personas: boot
# original: no, it deletes, then adds (ha-services.md H9)
# takes: 20
# nice: -10
# What takes the time here is the same with all backends.
L3_BACKENDS=${L3_BACKENDS:-nftables}
. "$HERE/netns.sh"
for backend in $backends; do
  scene "$backend" b1 b2
  in_kubernetes
  to() {
    jq -n --arg to "$1" '{"svc:web": {IPv4Mapping: {TailscaleServiceIP: "100.100.1.1", ClusterIP: $to}}}' | mounted ingress-config.json
  }
  to "${backend4}1"
  pod_start "${kube_env[@]}" TS_INGRESS_PROXIES_CONFIG_PATH="$CASE/proxies/ingress-config.json"
  await 10 "the Service" is_answered peer tcp 100.100.1.1 80 "b1 $pod4"
  at_start peer load-tcp load -tcp 200 -udp 0 -rate 2000 -new 200 100.100.1.1:80
  for number in 2 1 2 1 2; do
    to "$backend4$number"
    await 5 "backend $number" is_answered peer tcp 100.100.1.1 80 "b$number $pod4"
    sleep 0.5
  done
  nothing_lost load-tcp "$backend"
  # A Service that is gone is no longer reported at once, and its rules go later.
  mounted ingress-config.json <<<'{}'
  await 5 "the status" eval '[ "$(secret pod ingress-config.json | jq -c ".configs // {}")" = "{}" ]'
  answers peer tcp 100.100.1.1 80 "b2 $pod4"
  await 30 "the end of the rules" is_answered peer tcp 100.100.1.1 80 ""
  stop pod
done
