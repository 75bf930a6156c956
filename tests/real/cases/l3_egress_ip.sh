# M3: what reaches the Pod from the cluster goes to one node of the tailnet, as the Pod's own node (netfilter.md 14,
# scenarios 9 and 15).
# personas: containerboot boot
. "$HERE/netns.sh"
for backend in $backends; do
  scene "$backend" peer:80:10080
  no_icmp_errors
  sniff
  for target in "$peer4 $pod4 $own4" "$peer6 $pod6 $own6"; do
    read -r to pod own <<<"$target"
    pod_start TS_TAILNET_TARGET_IP="$to"
    carries client "$pod" 80 peer "$own"
    answers client tcp "$pod" 10080 "peer $own"
    stop pod
  done
  is "MSS of a SYN" "$(announced tailscale0 out syn v4)" 1240
  is "MSS of a SYN-ACK" "$(announced eth0 out synack v4)" 1240
  is "MSS of a SYN" "$(announced tailscale0 out syn v6)" 1220
  is "MSS of a SYN-ACK" "$(announced eth0 out synack v6)" 1220
done
