# A UDP client that keeps its socket: after a change its next datagrams go to the new target, not where they went before
# (netfilter.md 9.4; 14, scenario 24).
# personas: boot
# original: no, its flows stay with the old target (netfilter.md N15)
. "$HERE/netns.sh"
last_is() { [ "$(tail -n 1 "$CASE/stay.out")" = "$1" ]; }
for backend in $backends; do
  scene "$backend" b1 b2
  in_kubernetes
  to() {
    mounted ingress-config.json <<JSON
{"svc:web": {"IPv4Mapping": {"TailscaleServiceIP": "100.100.1.1", "ClusterIP": "$1"}}}
JSON
  }
  to "${backend4}1"
  pod_start "${kube_env[@]}" TS_INGRESS_PROXIES_CONFIG_PATH="$CASE/proxies/ingress-config.json"
  await 10 "the Service" is_answered peer udp 100.100.1.1 80 "b1 $pod4"
  : >"$CASE/stay.out"
  setsid nsenter --net="/proc/${pid[net-peer]}/ns/net" "$BIN/packets" stay 100.100.1.1:80 >>"$CASE/stay.out" </dev/null &
  pid[stay-peer]=$!
  await 5 "the first answers" last_is "b1 $pod4"
  to "${backend4}2"
  await 5 "answers of the other" last_is "b2 $pod4"
  kill "${pid[stay-peer]}"
  stop pod
done
