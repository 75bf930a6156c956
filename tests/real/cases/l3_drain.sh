# The end of an egress replica as the operator and the kubelet bring it about: the hook blocks while the cluster still
# leads to this Pod, counted by as many health checks as reach every replica, and whoever is connected stays so
# (ha-services.md 5; 10, scenario 15). The cluster's Service is b2, which deals connections out to this Pod and to b1.
# personas: containerboot boot
# takes: 15
# nice: -10
. "$HERE/netns.sh"
HOOK=http://127.0.0.1:9002/internal-egress-services-preshutdown
# endpoints PLACE...: whom the Service leads to, each in turn.
endpoints() {
  local turns="" number=0 to
  for to; do
    turns="$turns$number : $to, "
    number=$((number + 1))
  done
  at b2 nft -f - <<NFT
table ip service
delete table ip service
table ip service {
  chain pre {
    type nat hook prerouting priority -100; policy accept;
    tcp dport 9002 dnat to numgen inc mod $number map { ${turns%, } }
  }
  chain post {
    type nat hook postrouting priority 100; policy accept;
    masquerade
  }
}
NFT
}
# checks: how many health checks the other replica saw.
checks() { grep -c GET "$CASE/other.out" || true; }
scene nftables peer
at b2 sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
# The other replica: its health endpoint says whose it is.
at b1 python3 -u - >"$CASE/other.out" 2>&1 <<'PYTHON' &
import http.server
class Healthz(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Pod-IPv4", "10.42.0.11")
        self.send_header("Content-Length", "0")
        self.end_headers()
http.server.ThreadingHTTPServer(("", 9002), Healthz).serve_forever()
PYTHON
pid[serve-other]=$!
endpoints $pod4 "${backend4}1"
in_kubernetes
url=http://${backend4}2:9002/healthz
{ egress_service web 10001 "$url"; egress_service api 10002; } | together | mounted egress-services
printf 6 | mounted hep-pings
pod_start "${kube_env[@]}" POD_IPS=$pod4 TS_ENABLE_HEALTH_CHECK=true TS_EGRESS_PROXIES_CONFIG_PATH="$CASE/proxies"
await 10 "the status" secret_has pod egress-services
probe() { at client curl -sS -D - -o /dev/null --max-time 3 "$url" | tr -d '\r' | awk 'tolower($1) == "pod-ipv4:" { print $2 }'; }
await 10 "this Pod behind the Service" eval '[ "$(probe)" = '$pod4' ]'
at_start client load-drain load -tcp 20 -udp 0 -rate 400 -new 50 $pod4:10001

# The operator takes the Pod out of the Service only after the hook began; until then it does not return.
at pod curl -sS --max-time 60 -w '%{http_code} %{time_total}\n' -o "$CASE/hook.body" $HOOK >"$CASE/hook" 2>&1 &
hook=$!
sleep 2.5
kill -0 $hook 2>/dev/null || fail "the hook returned while the Service leads here: $(cat "$CASE/hook")"
# What leaves the config meanwhile is served on: clients may still be led here.
egress_service web 10001 "$url" | mounted egress-services
before=$(checks)
endpoints "${backend4}1"
sleep 2.5
kill -0 $hook 2>/dev/null || fail "the hook does not let the others see: $(cat "$CASE/hook")"
during=$(checks)
# One round may have begun before; the last one is six to the other alone.
[ $((during - before)) -ge 6 ] || fail "only $((during - before)) health checks"
sleep 1.5
is "health checks after the last round" "$(checks)" "$during"
answers client tcp $pod4 10001 "peer $own4"
original || answers client tcp $pod4 10002 "peer $own4"
wait $hook || fail "the hook failed: $(cat "$CASE/hook")"
read -r status took <"$CASE/hook"
is "answer of the hook" "$status $(cat "$CASE/hook.body")" "200 "
[ "${took%.*}" -ge 12 ] || fail "it returned after $took s"
echo "the hook took $took s; health checks that the other replica saw: $(checks)" >&2
original || await 5 "the end of what left the config" is_answered client tcp $pod4 10002 ""
nothing_lost load-drain
stop pod
