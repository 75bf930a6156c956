# A real tailscaled with a real network device, in the Pod and at the peer: M1 and M3 beside the rules that it
# has itself, which are the same with and without ours.
# personas: boot
# limit: 180
# takes: 75
. "$HERE/proxy.sh"
. "$HERE/netns.sh"
# The lab's servers are on the loopback of each of them.
ports="${CONTROL##*:} $(jq .derp "$LAB/control.out")"
lab_at() {
  setsid "$BIN/packets" relay "${pid[net-$1]}" $ports </dev/null >"$CASE/relay-$1.out" 2>&1 &
  pid[load-relay-$1]=$!
  await 5 "the relay of $1" grep -q ready "$CASE/relay-$1.out"
}
pod_up() {
  INIT=(nsenter --net="/proc/${pid[net-pod]}/ns/net")
  subject=("${the_subject[@]}")
  start pod "${up[@]}" TS_AUTHKEY="$key" TS_HOSTNAME="$NS-pod" TS_USERSPACE=false TS_STATE_DIR="$CASE/pod-state" \
    ${mode:+TS_DEBUG_FIREWALL_MODE="${mode%%-*}"} "$@"
  INIT=()
  ready pod
}
# its_rules: its port is another each time, and so is which of its chains comes first.
its_rules() { theirs | sed -E 's/dport [0-9]+/dport PORT/' | sort; }
the_subject=("${subject[@]}") key=$(auth_key)
for backend in $backends; do
  netns_end
  net bridge pod peer client b1
  at bridge ip link add br0 type bridge
  at bridge ip link set br0 up
  in_cluster_net pod $pod4 $pod6
  in_cluster_net client $client4 $client6
  in_cluster_net b1 "${backend4}1" "${backend6}1"
  in_cluster_net peer 10.42.0.99 fd42::99
  for node in pod peer; do
    at $node ip route add default via 10.42.0.254
    lab_at $node
  done
  forwarding 1
  served b1 80
  served peer 80
  INIT=(nsenter --net="/proc/${pid[net-peer]}/ns/net")
  TUN=tailscale0 node_start peer
  INIT=()
  backend "$backend"
  pod_up
  read -r node4 node6 <<<"$(node_ips pod | jq -r 'join(" ")')"
  read -r target4 target6 <<<"$(node_ips peer | jq -r 'join(" ")')"
  alone=$(its_rules)
  stop pod

  pod_up TS_DEST_IP="${backend4}1"
  original || is "tailscaled's rules" "$(its_rules)" "$alone"
  await 20 "the backend through the tailnet" is_answered peer tcp "$node4" 80 "b1 $pod4"
  carries peer "$node4" 80 b1 $pod4
  stop pod
  pod_up TS_DEST_IP="${backend6}1"
  await 20 "the backend through the tailnet" is_answered peer tcp "$node6" 80 "b1 $pod6"
  carries peer "$node6" 80 b1 $pod6
  stop pod
  original && clear_rules
  pod_up TS_TAILNET_TARGET_IP="$target4"
  original || is "tailscaled's rules" "$(its_rules)" "$alone"
  await 20 "the peer through the tailnet" is_answered client tcp $pod4 80 "peer $node4"
  carries client $pod4 80 peer "$node4"
  stop pod
  pod_up TS_TAILNET_TARGET_IP="$target6"
  await 20 "the peer through the tailnet" is_answered client tcp $pod6 80 "peer $node6"
  carries client $pod6 80 peer "$node6"
  stop pod
  is "what is left of ours" "$(ours)" ""
  kill -KILL "${pid[peer]}"
  wait "${pid[peer]}" 2>/dev/null || true
  unset "pid[peer]"
done
