# M1: what peers send to the node goes to one address of the cluster, over every protocol, in both families and with every
# backend (netfilter.md 14, scenarios 1 and 15; 20 with the legacy program).
# personas: containerboot boot
. "$HERE/netns.sh"
for backend in $backends; do
  scene "$backend" b1 b2
  no_icmp_errors
  sniff
  for target in "${backend4}1 $own4 $pod4" "${backend6}1 $own6 $pod6"; do
    read -r to own pod <<<"$target"
    pod_start TS_DEST_IP="$to"
    # Backends see the Pod: tailscaled masquerades what comes from the tailnet.
    carries peer "$own" 80 b1 "$pod"
    stop pod
  done
  is "MSS of a SYN" "$(announced eth0 out syn v4)" 1240
  is "MSS of a SYN-ACK" "$(announced tailscale0 out synack v4)" 1240
  is "MSS of a SYN" "$(announced eth0 out syn v6)" 1220
  is "MSS of a SYN-ACK" "$(announced tailscale0 out synack v6)" 1220
done
