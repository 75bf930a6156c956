# Twice sixty thousand connections that are closed at once, say nothing, stop half-way, send garbage or ask: peers are
# served during it and after, and memory stays flat.
# personas: proxy-serve proxy
# limit: 300
# takes: 30
. "$HERE/proxy.sh"
lab_of lab:admins
resident() { awk '$1 == "VmRSS:" { print $2 }' "/proc/${pid[proxy]}/status"; }
served() { KUBECONFIG=$CASE/client.kubeconfig KUBECACHEDIR=$CASE/kubecache timeout 10 kubectl get namespace "$NS" >/dev/null; }
address=()
[ "$PERSONA" = proxy ] || address=("$(node client '.TailscaleIPs[0]')")
# answered NAME CONNECTIONS: everybody who asked had the answer that was theirs; none where only tailscaled may come in.
answered() {
  local asked=$(($2 / 40)) nobody=$(($2 / 1000)) want
  want="200: $((asked - nobody)), 500: $nobody, none: 0"
  [ "$PERSONA" != proxy ] || want="200: 0, 500: 0, none: $asked"
  is "the end of $1" "$(tail -n 1 "${log[$1]}")" "$2 connections, $want, all: $asked"
}
# crowd NAME: 60,000, during which a peer is served.
crowd() {
  subject=(python3 "$HERE/../clients/crowd.py" "$proxy_port" 60000 "${address[@]}")
  start "$1"
  times=0
  while running "$1"; do
    served || fail "not served within 10 s during $1, after $times times"
    times=$((times + 1))
    sleep 0.5
  done
  exits "$1" 0 1
  answered "$1" 60000
  served || fail "not served after $1"
}
# The first of them fill what is kept for later: pools, buffers, the allocator of each thread, as many at once as the
# machine has it.
crowd warm
before=$(resident)
crowd crowd
after=$(resident)
echo "served $times times during it; resident: $before KB, after the crowd $after KB"
[ "$times" -ge 5 ] || fail "it was over after $times requests, too soon to say much"
[ $((after - before)) -lt 4096 ] || fail "memory grew from $before KB to $after KB"
seen_as "$(login client)" lab:admins
