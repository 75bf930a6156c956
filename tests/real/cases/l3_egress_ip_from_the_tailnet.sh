# M3: what comes from the tailnet is not sent back there (netfilter.md 14, scenario 9), and what the Pod serves itself is
# reached from the cluster (scenario 10).
# personas: containerboot boot
# original: no, every packet is sent on, with nftables those of the tailnet too (netfilter.md N4, N7)
. "$HERE/netns.sh"
for backend in $backends; do
  scene "$backend" peer:80:9002 pod
  pod_start TS_TAILNET_TARGET_IP=$peer4 TS_ENABLE_HEALTH_CHECK=true
  answers client tcp $pod4 80 "peer $own4"
  answers peer tcp $own4 80 "pod $peer4"
  answers peer udp $own4 80 "pod $peer4"
  is "the probe's answer" "$(at client curl -s -o /dev/null -w '%{http_code}' --max-time 2 "http://$pod4:9002/healthz")" 200
  stop pod
done
