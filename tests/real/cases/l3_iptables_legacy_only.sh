# A machine with iptables-legacy and nothing else: no nft, no other flavour, and a kernel that does not know nftables. What
# works is found and used, which is said with the reason, and traffic goes as it does elsewhere (netfilter.md 14, scenario
# 20: numbers 1, 4, 9, 15 and 16).
# personas: boot
# original: no, with iptables it spreads no IPv6 and takes in what comes from the tailnet (netfilter.md N4, N8)
# nice: -10
. "$HERE/netns.sh"
# It is asked for nothing: `backend` only puts the programs where they are found.
old_machine() {
  scene iptables-legacy "$@"
  mode=
  ln -sf "$BIN/standin" "$CASE/bin/tailscaled"
  pod_init=("$HERE/without-nftables" env PATH="$CASE/bin")
  no_icmp_errors
}
says_why() {
  said pod "firewall: iptables (v" || fail "no word of the choice"
  grep -aF "firewall: iptables" "${log[pod]}" | tail -n 1 >&2
  said pod "legacy)), with IPv6: nftables: the kernel has no nftables" || fail "no reason for it"
}
old_machine b1
if at pod "$HERE/without-nftables" nft list tables 2>/dev/null; then fail "nftables is there all the same"; fi
sniff
for target in "${backend4}1 $own4 $pod4" "${backend6}1 $own6 $pod6"; do
  read -r to own pod <<<"$target"
  pod_start TS_DEST_IP="$to"
  says_why
  carries peer "$own" 80 b1 "$pod"
  stop pod
done
is "MSS of a SYN" "$(announced eth0 out syn v4) $(announced eth0 out syn v6)" "1240 1220"
is "MSS of a SYN-ACK" "$(announced tailscale0 out synack v4) $(announced tailscale0 out synack v6)" "1240 1220"

old_machine b1 b2 b3
named_app 1 2 3
pod_start TS_EXPERIMENTAL_DEST_DNS_NAME=app.test
for own in "$own4 $pod4" "$own6 $pod6"; do
  read -r own pod <<<"$own"
  is "who answers on $own" "$(asks peer tcp "$own" 80 30 | sort | uniq -c | xargs)" "10 b1 $pod 10 b2 $pod 10 b3 $pod"
done
# Backends come and go under load: nothing ends, nothing is refused.
at_start peer load-old load -tcp 100 -udp 0 -rate 1000 -new 100 $own4:80
for numbers in "1 2" "2 3" "3" "1 2 3"; do
  # shellcheck disable=SC2086 # numbers
  named_app $numbers
  sleep 1.6
done
nothing_lost load-old
stop pod

old_machine peer pod
for target in "$peer4 $pod4 $own4" "$peer6 $pod6 $own6"; do
  read -r to pod own <<<"$target"
  pod_start TS_TAILNET_TARGET_IP="$to"
  carries client "$pod" 80 peer "$own"
  # What comes from the tailnet is not sent back there.
  answers peer tcp "$own" 80 "pod $to"
  stop pod
done
is "what is left of ours" "$(ours)" ""
