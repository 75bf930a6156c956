# The operator's side of M6: the status is in the Secret whatever others write there at the same time, and is written
# after an outage of the API server, in which the rules change nevertheless (ha-services.md 10, scenarios 6, 8, 9, 12).
# personas: containerboot boot
# original: no, the process ends with the API server (ha-services.md H6)
# limit: 180
# takes: 15
. "$HERE/netns.sh"
netns_start
served peer 80
in_kubernetes
# port NUMBER
port() { egress_service web "$1" | mounted egress-services; }
reported() { [ "$(secret pod egress-services | jq -c '[.podIPv4, .services.web.ports[].matchPort]')" = '["'$pod4'",'"$1"']' ]; }
kubectl patch secret pod -n "$NS" --type merge -p "$(jq -n '{data: {"egress-services": ({podIPv4: "10.9.9.9", services: {web: {
  ports: [{protocol: "TCP", matchPort: 10001, targetPort: 80}], tailnetTargetIPs: ["100.64.0.9"], tailnetTarget: {ip: "100.64.0.9", fqdn: ""}}}} | tojson | @base64)}}')" >/dev/null
port 10001
pod_start "${kube_env[@]}" TS_EGRESS_PROXIES_CONFIG_PATH="$CASE/proxies"
await 10 "a status of this Pod" reported 10001
# Somebody who writes all the time, each time with what the Secret was a moment ago.
(
  while :; do
    kubectl get secret pod -n "$NS" -o json | jq '.metadata.annotations.turn = (now | tostring)' |
      kubectl replace -f - >/dev/null 2>>"$CASE/conflicts" || true
  done
) &
writer=$!
for number in 10002 10003 10004 10005 10006 10007 10008; do
  port $number
  await 10 "the status with port $number" reported $number
  answers client tcp $pod4 $number "peer $own4"
  answers client tcp $pod4 $((number - 1)) ""
done
kill "$writer"
wait "$writer" 2>/dev/null || true
reported 10008 || fail "it did not last"
# One PATCH each, and none for what changes nothing.
before=$(requests pod patch)
port 10008
sleep 2
is "requests for nothing" "$(($(requests pod patch) - before))" 0
apiserver_kill
port 10009
await 10 "the rules without an API server" is_answered client tcp $pod4 10009 "peer $own4"
sleep 5
apiserver_start
await 40 "the status afterwards" reported 10009
# None at all is a status too.
mounted egress-services <<<'{}'
none() { [ "$(secret pod egress-services | jq -c .)" = '{"podIPv4":"'$pod4'","podIPv6":"'$pod6'","services":null}' ]; }
await 10 "the status of nothing" none
refused client tcp $pod4 10009
stop pod
