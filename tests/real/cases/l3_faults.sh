# The kernel refuses part of a transaction, a lock is held, sockets run out, /proc/sys cannot be written: what was in force
# stays, in both families, nothing is half there; it is said once, tried again, and said when it is over (netfilter.md 14,
# scenario 19).
# personas: boot
# original: no, it ends, with half of it done (netfilter.md N5)
# limit: 150
# takes: 25
. "$HERE/netns.sh"
# said_since LINE TEXT: how many lines of the log since then say so.
said_since() { tail -n +$(($1 + 1)) "${log[pod]}" | grep -cF -- "$2" || true; }
lines() { wc -l <"${log[pod]}"; }
is_said_since() { [ "$(said_since "$1" "$2")" -gt 0 ]; }
# owned FAMILY TABLE: that table is somebody else's as long as this somebody lives, and the kernel lets nobody else near it.
owned() {
  mkfifo "$CASE/owner"
  setsid nsenter --net="/proc/${pid[net-pod]}/ns/net" nft -i <"$CASE/owner" >"$CASE/owner.out" 2>&1 &
  pid[stay-owner]=$!
  exec 7>"$CASE/owner"
  printf '%s\n' "add table $1 $2" "delete table $1 $2" "add table $1 $2 { flags owner; }" >&7
  await 5 "a table of somebody's" is_owned "$1" "$2"
}
is_owned() { at pod nft list table "$1" "$2" | grep -q owner; }
given_up() {
  # Whatever was started since has the other end of its pipe open.
  kill -KILL "${pid[stay-owner]}"
  wait "${pid[stay-owner]}" 2>/dev/null || true
  exec 7>&-
  unset "pid[stay-owner]"
  rm "$CASE/owner"
}
both_families() {
  jq -n --argjson port "$1" '{web: {healthCheckEndpoint: "", tailnetTarget: {ip: "", fqdn: "web.lab.ts.net"},
    ports: [{protocol: "TCP", matchPort: $port, targetPort: 80}]}}' | mounted egress-services
}
start_group() { pod_start "${kube_env[@]}" TS_EGRESS_PROXIES_CONFIG_PATH="$CASE/proxies" "$@"; }
as_before() {
  [ "$(ours | grep -v ip6)" = "$1" ] && is_answered client tcp $pod4 10001 "peer $own4" && is_answered client tcp $pod4 10002 ""
}
refusal='the kernel refused the rules'

# Part of a batch: the second family's, so that the first one's is judged good before.
scene nftables peer
in_kubernetes
both_families 10001
start_group
await 10 "the first rules" is_answered client tcp $pod6 10001 "peer $own6"
owned ip6 tailpod_egress
v4=$(ours | grep 'nft ip ')
since=$(lines)
both_families 10002
await 10 "the refusal" is_said_since "$since" "$refusal"
grep -aF "$refusal" "${log[pod]}" | tail -n 1 >&2
sleep 2
is "rules of the other family" "$(ours | grep 'nft ip ')" "$v4"
answers client tcp $pod4 10001 "peer $own4"
refused client tcp $pod4 10002
is "lines about the refusal" "$(said_since "$since" "$refusal")" 1
is "the status" "$(secret pod egress-services | jq -c '[.services.web.ports[].matchPort]')" "[10001]"
given_up
await 40 "the new rules" is_answered client tcp $pod4 10002 "peer $own4"
answers client tcp $pod6 10002 "peer $own6"
is "lines about the end of it" "$(said_since "$since" "in force again")" 1
await 10 "the status" eval '[ "$(secret pod egress-services | jq -c "[.services.web.ports[].matchPort]")" = "[10002]" ]'

# No socket to be had: as if the permission were gone.
since=$(lines)
prlimit --pid "${pid[pod]}" --nofile=3:
both_families 10003
await 15 "the complaint" is_said_since "$since" "Too many open files"
answers client tcp $pod4 10002 "peer $own4"
refused client tcp $pod4 10003
running pod || fail "it ended"
prlimit --pid "${pid[pod]}" --nofile=4096:
await 40 "the rules, with sockets again" is_answered client tcp $pod4 10003 "peer $own4"
stop pod
is "what is left of ours" "$(ours)" ""

# Refused from the beginning: nothing is half there, and nobody is told that it serves, until it does.
scene nftables peer
in_kubernetes
both_families 10001
owned ip6 tailpod_egress
pod_run "${kube_env[@]}" TS_EGRESS_PROXIES_CONFIG_PATH="$CASE/proxies"
await_said pod "$refusal"
sleep 1
is "what is there of ours" "$(ours | grep '^nft ip ' || true)" ""
is "status" "$(secret pod egress-services)" ""
given_up
await 40 "the rules" is_answered client tcp $pod4 10001 "peer $own4"
await 10 "the status" secret_has pod egress-services
stop pod

# iptables: somebody sits on the lock of one flavour; the other's table for IPv6 is somebody else's, which shows only when
# the one for IPv4 is done.
for backend in $backends; do
  case $backend in
  iptables-legacy)
    patience=0
    block() {
      setsid nsenter --target "${pid[pod]}" --mount flock /run/xtables.lock sleep 60 &
      pid[stay-lock]=$!
    }
    unblock() {
      kill -- "-${pid[stay-lock]}"
      wait "${pid[stay-lock]}" 2>/dev/null || true
      unset "pid[stay-lock]"
    }
    ;;
  iptables-nft)
    patience=10 # each further try begins with IPv4, and puts that back when IPv6 is refused again
    block() { owned ip6 nat; }
    unblock() { given_up; }
    ;;
  *) continue ;;
  esac
  scene "$backend" peer
  in_kubernetes
  both_families 10001
  start_group
  await 10 "the first rules" is_answered client tcp $pod4 10001 "peer $own4"
  v4=$(ours | grep -v ip6)
  since=$(lines)
  block
  both_families 10002
  await 25 "the refusal of $backend" is_said_since "$since" "$refusal"
  grep -aF "$refusal" "${log[pod]}" | tail -n 1 >&2
  [ "$(grep -aF "$refusal" "${log[pod]}" | tail -n 1 | wc -c)" -lt 400 ] || fail "that is more than a line"
  await "$patience" "the rules of $backend for IPv4 as they were" as_before "$v4"
  unblock
  await 40 "the new rules of $backend" is_answered client tcp $pod4 10002 "peer $own4"
  answers client tcp $pod6 10002 "peer $own6"
  stop pod
done
mode=

# Forwarding that cannot be switched on, for a name that is known only later: told, and the rules are there for whoever
# arranges it otherwise.
scene nftables b1
named_app 1
forwarding 0
pod_init=(unshare --mount --propagation private sh -c 'mount -o bind,ro /proc/sys /proc/sys && exec "$@"' -)
pod_start TS_EXPERIMENTAL_DEST_DNS_NAME=app.test
said pod "To run tailscale as a proxy or router container, IP forwarding must be enabled." || fail "no hint"
refused peer tcp $own4 80
forwarding 1
answers peer tcp $own4 80 "b1 $pod4"
stop pod
