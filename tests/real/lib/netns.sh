# shellcheck shell=bash
# The network of a case about L3 proxying (netfilter.md 12), beside lib/case.sh: one namespace for each of
#
#   peer ---- tailscale0 | pod | eth0 ---- bridge ---- client, b1, b2, b3
#
# peer is a node of the tailnet, client and the backends are in the cluster. tailscale0 is a veth of MTU 1280; the peer's
# own end has 1500, so that it announces an MSS that is too large for the way, and what is too large vanishes. No segment
# offload on either end: it would hide that. In the Pod runs the subject with a tailscaled that only believes things
# (netns/standin), and what a real one adds to the firewall is added by hand where it matters.
#
# The namespaces belong to processes of the case and go with them; nothing has a name that another case could have.

# shellcheck source=rules.sh
. "$HERE/rules.sh"

own4=100.64.0.1 own6=fd7a:115c:a1e0::1
peer4=100.64.0.9 peer6=fd7a:115c:a1e0::9
pod4=10.42.0.2 pod6=fd42::2
client4=10.42.0.50 client6=fd42::50
backend4=10.42.0.1 backend6=fd42::1 # and the number: 10.42.0.11, fd42::12, ...

# net NAME...: an empty network namespace.
net() {
  local name
  for name; do
    setsid unshare --net sleep infinity </dev/null >/dev/null 2>&1 &
    pid[net-$name]=$!
    await 5 "the network of $name" is_apart "${pid[net-$name]}"
    at "$name" ip link set lo up
  done
}
is_apart() { [ "$(readlink "/proc/$1/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }

# at NAME COMMAND...: in the network of NAME.
at() {
  local name=$1
  shift
  nsenter --net="/proc/${pid[net-$name]}/ns/net" "$@"
}

# wire NAME DEVICE MTU NAME DEVICE MTU: a cable between two of them.
wire() {
  ip link add "$2" mtu "$3" netns "${pid[net-$1]}" type veth peer name "$5" mtu "$6" netns "${pid[net-$4]}"
  at "$1" ip link set "$2" up
  at "$4" ip link set "$5" up
}

# address NAME DEVICE ADDRESS/LENGTH...
address() {
  local name=$1 device=$2 one
  shift 2
  for one; do
    case $one in
    *:*) at "$name" ip address add "$one" dev "$device" nodad ;;
    *) at "$name" ip address add "$one" dev "$device" ;;
    esac
  done
}

# in_cluster_net NAME IPV4 IPV6: a place on the bridge.
in_cluster_net() {
  wire "$1" eth0 1500 bridge "$1" 1500
  at bridge ip link set "$1" master br0
  address "$1" eth0 "$2/24" "$3/64"
}

# netns_end: as if it had never been.
netns_end() {
  local name
  for name in "${!pid[@]}"; do
    case $name in
    net-* | serve-* | sniff-* | load-* | stay-* | dns | relay)
      kill -KILL "${pid[$name]}" 2>/dev/null || true
      wait "${pid[$name]}" 2>/dev/null || true
      unset "pid[$name]"
      ;;
    esac
  done
}

# netns_start: all of it, with forwarding switched on as the operator's init container does. What was before is no more.
netns_start() {
  local number end
  netns_end
  net bridge pod peer client b1 b2 b3
  at bridge ip link add br0 type bridge
  at bridge ip link set br0 up
  in_cluster_net pod $pod4 $pod6
  in_cluster_net client $client4 $client6
  for number in 1 2 3; do
    in_cluster_net "b$number" "$backend4$number" "$backend6$number"
  done
  wire peer tailnet0 1500 pod tailscale0 1280
  for end in "peer tailnet0" "pod tailscale0"; do
    # shellcheck disable=SC2086 # two words
    set -- $end
    at "$1" ip link set "$2" gso_max_segs 1
  done
  address pod tailscale0 $own4/10 $own6/48
  address peer tailnet0 $peer4/10 $peer6/48 100.64.0.10/10
  # Never the source of its own accord: an answer on a wildcard socket would come from it.
  at peer ip address add fd7a:115c:a1e0::10/48 dev tailnet0 nodad preferred_lft 0
  # The Services that the Pod is to host, and other addresses that it may get.
  at peer ip route add 100.100.0.0/16 via $own4
  at peer ip route add fd7a:115c:a1e0:aa::/64 via $own6
  forwarding 1
}

# forwarding 0|1 [pod]
forwarding() {
  # shellcheck disable=SC2016 # expands there
  at pod sh -c 'echo "$1" >/proc/sys/net/ipv4/ip_forward; echo "$1" >/proc/sys/net/ipv6/conf/all/forwarding' - "$1"
}

# served NAME PORT...: TCP and UDP are answered there.
served() {
  local name=$1 port=${2##*:}
  at_start "$name" "serve-$name-$port" serve "$@"
}
# at_start NAME PROGRAM ARGUMENT...: one of netns/packets in that network, until the case ends; its words are in
# $CASE/PROGRAM.out.
at_start() {
  local name=$1 program=$2
  shift 2
  : >"$CASE/$program.out" # there before anybody looks
  setsid nsenter --net="/proc/${pid[net-$name]}/ns/net" "$BIN/packets" "$@" </dev/null >>"$CASE/$program.out" 2>"$CASE/$program.err" &
  pid[$program]=$!
  await 5 "$program" grep -q ready "$CASE/$program.out"
}
at_end() {
  kill -TERM "${pid[$1]}"
  wait "${pid[$1]}" 2>/dev/null || true
  unset "pid[$1]"
}

# scene BACKEND [PLACE[:PORT...]]...: all of the network anew, whose firewall the subject programs by BACKEND and which has
# tailscaled's rules in it already. At these places ports answer, 80 unless others are named.
scene() {
  local place
  netns_start
  backend "$1"
  tailscaled_rules "$1"
  shift
  for place; do
    case $place in
    # shellcheck disable=SC2046 # a word for each port
    *:*) served "${place%%:*}" $(tr : ' ' <<<"${place#*:}") ;;
    *) served "$place" 80 ;;
    esac
  done
}

# ---- who answers -----------------------------------------------------------------------------

# socket ADDRESS PORT
socket() { case $1 in *:*) echo "[$1]:$2" ;; *) echo "$1:$2" ;; esac; }

# asks FROM tcp|udp ADDRESS PORT [COUNT]: `NAME SOURCE` for each answer, nothing when there is none.
asks() { at "$1" "$BIN/packets" ask "$2" "$(socket "$3" "$4")" ${5:+"$5"} 2>"$CASE/complaint" || true; }

# answers FROM tcp|udp ADDRESS PORT `NAME SOURCE`
answers() { is "who answers $1 on $2 $(socket "$3" "$4")" "$(asks "$1" "$2" "$3" "$4")" "$5"; }
is_answered() { [ "$(asks "$1" "$2" "$3" "$4")" = "$5" ]; }
# refused FROM tcp|udp ADDRESS PORT: nobody answers.
refused() { answers "$1" "$2" "$3" "$4" ""; }

# echoes NAME FAMILY: how many echo requests have reached it.
echoes() {
  case $2 in
  4) at "$1" awk '/^Icmp: [0-9]/ { print $10 }' /proc/net/snmp ;;
  6) at "$1" awk '$1 == "Icmp6InEchos" { print $2 }' /proc/net/snmp6 ;;
  esac
}
family() { case $1 in *:*) echo 6 ;; *) echo 4 ;; esac; }

# pings FROM ADDRESS NAME: it gets an answer, and it is NAME that was asked.
pings() {
  local before
  before=$(echoes "$3" "$(family "$2")")
  at "$1" ping -n -q -c 1 -W 2 "$2" >"$CASE/complaint" 2>&1 || fail "no echo from $2 to $1"
  is "echo requests of $1 to $2 at $3" "$(($(echoes "$3" "$(family "$2")") - before))" 1
}

# carries FROM ADDRESS PORT NAME SOURCE: TCP, UDP and ICMP get there and back, bulk data too, with the ICMP errors that
# would tell of a way too narrow suppressed (netfilter.md 14, scenario 15).
carries() {
  answers "$1" tcp "$2" "$3" "$4 $5"
  answers "$1" udp "$2" "$3" "$4 $5"
  pings "$1" "$2" "$4"
  bulk "$1" "$2" "$3"
}
bulk() {
  is "bytes of $1 to $2 and back" "$(at "$1" "$BIN/packets" bulk "$(socket "$2" "$3")" 400000 2>&1)" 400000
}

# no_icmp_errors: the Pod's own are lost.
no_icmp_errors() {
  at pod nft -f - <<'NFT'
table inet lab_icmp {
  chain out {
    type filter hook output priority 0; policy accept;
    oifname "lo" accept
    icmp type { destination-unreachable, time-exceeded } drop
    icmpv6 type { destination-unreachable, packet-too-big, time-exceeded } drop
  }
}
NFT
}

# nothing_lost LOAD [WORDS]: ends that load, which at_start began; all packets came back, no stream ended, nobody was refused.
nothing_lost() {
  local came_to
  at_end "$1"
  came_to=$(tail -n 1 "$CASE/$1.out")
  echo "${2:+$2: }$came_to" >&2
  is "what was lost" "$(jq -c '[.Lost, .Broken, .Refused]' <<<"$came_to")" "[0,0,0]"
}
# unharmed CHANGES: nor of the whole load of `load-all`, by so many changes.
unharmed() {
  nothing_lost load-all "$backend: $1 changes"
  [ "$(tail -n 1 "$CASE/load-all.out" | jq .Rate)" -ge 9000 ] || fail "not as many packets as there should be"
}

# sniffed FILTER: the announcements on the devices of the Pod so far; sniff starts to look.
sniff() {
  at_start pod sniff-tailscale0 sniff tailscale0
  at_start pod sniff-eth0 sniff eth0
}
# announced DEVICE WAY KIND FAMILY: the MSS, as it was last on that device.
announced() { awk -v w="$2 $3 $4" '$1 " " $2 " " $3 == w { m = $4 } END { print m }' "$CASE/sniff-$1.out"; }

# ---- the Pod ---------------------------------------------------------------------------------

# believes [JSON MEMBERS]: what tailscaled says from now on of the node and its peers.
believes() {
  jq -n "{self: {ips: [\"$own4\", \"$own6\"]}, peers: [{id: 9, name: \"web.lab.ts.net.\", ips: [\"$peer4\", \"$peer6\"]}]} + {${1-}}" \
    >"$CASE/standin.new"
  mv "$CASE/standin.new" "$CASE/standin.json"
}

# pod_env: one-step mode needs no login, and is how the operator runs it.
pod_run() {
  [ -e "$CASE/standin.json" ] || believes
  [ -e "$CASE/pod-config" ] || config pod "Locked: false"
  ln -sf "$BIN/standin" "$CASE/bin/tailscaled"
  INIT=(nsenter --net="/proc/${pid[net-pod]}/ns/net" ${pod_init:+"${pod_init[@]}"})
  start pod STANDIN="$CASE/standin.json" TS_USERSPACE=false TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR="$CASE/pod-config" \
    TS_LOCAL_ADDR_PORT="[::]:9002" ${mode:+TS_DEBUG_FIREWALL_MODE="${mode%%-*}"} "$@"
  INIT=()
}
# pod_start [VARIABLE=value...]: until it says that it is up.
pod_start() {
  pod_run "$@"
  ready pod
}
# pod_kill: SIGKILL, and the container is gone with it.
pod_kill() {
  local daemon
  daemon=$(child pod tailscaled)
  kill -KILL "${pid[pod]}" ${daemon:+"$daemon"}
  wait "${pid[pod]}" 2>/dev/null || true
  unset "pid[pod]"
  # Until it has ended it listens on its socket, which the next one would find.
  [ -z "$daemon" ] || await 10 "the end of tailscaled" dead "$daemon"
}
dead() { [ ! -e "/proc/$1/exe" ]; }

# in_pod COMMAND...: in the running Pod beside its own process, as `kubectl exec` has it.
in_pod() {
  local environment
  mapfile -d '' environment <"/proc/${pid[pod]}/environ"
  nsenter --target "${pid[pod]}" --net --mount env -i "${environment[@]}" "$@"
}

# backend MODE: nftables, iptables-legacy or iptables-nft; for both of the latter `iptables` is that flavour.
backend() {
  local program
  mode=$1
  case $1 in iptables-*) ;; *) return 0 ;; esac
  for program in iptables ip6tables; do
    for tool in "" -save -restore; do
      ln -sf "$(command -v "$program-${1#iptables-}$tool")" "$CASE/bin/$program$tool"
    done
  done
}
backends=${L3_BACKENDS:-nftables iptables-legacy iptables-nft}

# in_kubernetes: the Pod has a Secret, and its API server on a loopback of its own.
in_kubernetes() {
  service_account pod
  kubectl delete secret pod -n "$NS" --ignore-not-found >/dev/null
  make_secret pod # the operator does
  setsid "$BIN/packets" relay "${pid[net-pod]}" "$KUBE_PORT" </dev/null >"$CASE/relay.out" 2>&1 &
  pid[relay]=$!
  await 5 "the relay" grep -q ready "$CASE/relay.out"
  kube_env=("${in_cluster[@]}" KUBERNETES_SERVICE_PORT="$KUBE_PORT" TS_KUBE_SECRET=pod POD_NAME=pod POD_UID=uid-pod
    POD_IP=$pod4 POD_IPS="$pod4,$pod6" TS_EXPERIMENTAL_SERVICE_AUTO_ADVERTISEMENT=false)
}

# mount FILE: stdin becomes a file of the ConfigMap at $CASE/proxies, the way the kubelet does it.
mounted() {
  local dir=$CASE/proxies version
  version=..${EPOCHREALTIME/./}
  mkdir -p "$dir/$version"
  [ ! -e "$dir/..data" ] || cp -p "$dir/..data/"* "$dir/$version"
  cat >"$dir/$version/$1"
  ln -sfn "$version" "$dir/..data_tmp"
  mv -T "$dir/..data_tmp" "$dir/..data"
  [ -e "$dir/$1" ] || ln -s "..data/$1" "$dir/$1"
}

# egress_service NAME MATCH [URL]: the config of one egress Service, which leads a TCP port of the Pod to port 80 of the
# peer. Several of them are one config when they are added up.
egress_service() {
  jq -n --arg ip $peer4 --arg name "$1" --argjson port "$2" --arg url "${3-}" '{($name): {healthCheckEndpoint: $url,
    tailnetTarget: {ip: $ip, fqdn: ""}, ports: [{protocol: "TCP", matchPort: $port, targetPort: 80}]}}'
}
together() { jq -s add; }

# named NAME ADDRESS...: the Pod's name server, which is on its own loopback as the lab has it in resolv.conf.
named() {
  echo "$*" >"$CASE/names.new"
  mv "$CASE/names.new" "$CASE/names"
  [ -n "${pid[dns]-}" ] || at_start pod dns dns "$CASE/names"
}
# named_app NUMBER...: app.test is these backends.
named_app() {
  local number addresses=()
  for number; do addresses+=("$backend4$number" "$backend6$number"); done
  named app.test "${addresses[@]}"
}
