# M5: what is sent to the Pod's address in the cluster reaches what listens on the node's address in the tailnet
# (netfilter.md 14, scenario 14).
# personas: containerboot boot
. "$HERE/netns.sh"
echo '{"TCP": {"5432": {"TCPForward": "127.0.0.1:5432"}}}' >"$CASE/serve.json"
for backend in $backends; do
  scene "$backend" pod
  served pod "$own4:443" "[$own6]:443"
  for from in "$pod4 $client4" "$pod6 $client6"; do
    read -r pod client <<<"$from"
    refused client tcp "$pod" 443
    pod_start EXPERIMENTAL_ALLOW_PROXYING_CLUSTER_TRAFFIC_VIA_INGRESS=true TS_SERVE_CONFIG="$CASE/serve.json" POD_IP="$pod"
    carries client "$pod" 443 pod "$client"
    # What listens on all addresses is still there.
    answers client tcp "$pod" 80 "pod $client"
    stop pod
  done
done
