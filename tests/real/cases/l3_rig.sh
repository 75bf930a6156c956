# The rig itself, with rules by hand: nothing gets through without them, and with them everything but what is too large
# for the way, unless the MSS of both ends is brought down (netfilter.md 5.8).
# personas: lab
# takes: 15
. "$HERE/netns.sh"
netns_start
served b1 80
tailscaled_rules nftables
no_icmp_errors
refused peer tcp $own4 80
refused peer udp $own6 80
at pod nft -f - <<NFT
table ip by_hand {
  chain pre { type nat hook prerouting priority -105; policy accept; ip daddr $own4 dnat to ${backend4}1; }
}
table ip6 by_hand {
  chain pre { type nat hook prerouting priority -105; policy accept; ip6 daddr $own6 dnat to ${backend6}1; }
}
NFT
sniff
for own in $own4 $own6; do
  answers peer tcp $own 80 "b1 $([ $own = $own4 ] && echo $pod4 || echo $pod6)"
  pings peer $own b1
  if at peer timeout 3 "$BIN/packets" bulk "$(socket $own 80)" 400000 2>/dev/null; then fail "bulk gets through to $own"; fi
done
is "MSS of a SYN" "$(announced eth0 out syn v4)" 1460
# One direction is not enough.
at pod nft -f - <<NFT
table inet by_hand_too {
  chain tp_fwd { type filter hook forward priority -150; policy accept;
    oifname "tailscale0" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
  }
}
NFT
if at peer timeout 3 "$BIN/packets" bulk "$own4:80" 400000 2>/dev/null; then fail "bulk gets through with half a clamp"; fi
at pod nft add rule inet by_hand_too tp_fwd iifname tailscale0 tcp flags '&' '(syn | rst)' == syn tcp option maxseg size set rt mtu
bulk peer $own4 80
bulk peer $own6 80
is "MSS of a SYN" "$(announced eth0 out syn v4) $(announced eth0 out syn v6)" "1240 1220"

# The load is one that notices: a table that is deleted and made again loses what comes in between.
at_start peer load-rig load -tcp 100 -udp 100 -rate 2000 $own4:80
sleep 1
nothing_lost load-rig "without a change"
at_start peer load-rig load -tcp 10 -udp 10 -rate 200 -new 1000 $own4:80
at pod nft delete table ip by_hand
sleep 0.5
at_end load-rig
[ "$(tail -n 1 "$CASE/load-rig.out" | jq .Refused)" -gt 100 ] || fail "new connections need no rules: $(cat "$CASE/load-rig.out")"
