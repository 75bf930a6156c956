# Rules of others stay as they are, to the letter and in place: those of a kube-proxy, of tailscaled, and what somebody
# left at the usual priorities, in nft and in both flavours of iptables. Against a foreign translation of the same packets
# ours wins (netfilter.md 8, rules 1 and 3; 14, scenario 22).
# personas: boot
# original: no, it adds to the tables that everybody uses, and flushes one (netfilter.md N3)
# takes: 15
. "$HERE/netns.sh"
kube_proxy_nft() {
  local family
  for family in ip ip6; do
    at pod nft -f - <<NFT
table $family kube-proxy {
  map service-ips {
    type ${family/ip/ipv}$([ $family = ip6 ] || echo 4)_addr . inet_proto . inet_service : verdict
  }
  set cluster-ips { type ${family/ip/ipv}$([ $family = ip6 ] || echo 4)_addr; }
  chain services { $family daddr . meta l4proto . th dport vmap @service-ips; }
  chain nat-prerouting { type nat hook prerouting priority dstnat; policy accept; jump services; }
  chain nat-output { type nat hook output priority -100; policy accept; jump services; }
  chain nat-postrouting { type nat hook postrouting priority srcnat; policy accept; meta mark & 0x4000 != 0x0 masquerade; }
  chain filter-forward { type filter hook forward priority filter; policy accept; ct state new counter packets 3 bytes 180; }
}
NFT
  done
  # Leftovers that would send the same packets elsewhere.
  at pod nft -f - <<NFT
table ip somebody {
  chain pre { type nat hook prerouting priority -100; policy accept; ip daddr $own4 dnat to ${backend4}3; }
}
NFT
}
kube_proxy_iptables() {
  local program flavour
  for flavour in $1; do
    for program in iptables-$flavour ip6tables-$flavour; do
      at pod "$program-restore" --noflush <<'IPTABLES'
*filter
:KUBE-FORWARD - [0:0]
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
COMMIT
*mangle
:KUBE-KUBELET-CANARY - [0:0]
COMMIT
IPTABLES
    done
    at pod "iptables-$flavour" -t nat -A PREROUTING -d $own4 -j DNAT --to-destination "${backend4}3"
  done
}
for backend in $backends; do
  # nft rules besides make iptables-nft of no use, so there each has its own turn.
  for foreign in nft legacy; do
    if [ "$foreign $backend" = "nft iptables-nft" ]; then continue; fi
    netns_start
    served b1 80
    backend "$backend"
    if [ $foreign = nft ]; then
      tailscaled_rules nftables
      kube_proxy_nft
    else
      case $backend in
      iptables-nft) flavours="nft legacy" ;;
      *) flavours=legacy ;;
      esac
      for flavour in $flavours; do tailscaled_rules "iptables-$flavour"; done
      kube_proxy_iptables "$flavours"
    fi
    before=$(theirs)
    pod_start TS_DEST_IP="${backend4}1"
    is "their rules beside ours" "$(theirs)" "$before"
    [ -n "$(ours)" ] || fail "no rules of ours"
    answers peer tcp $own4 80 "b1 $pod4"
    believes 'self: {ips: ["100.64.0.3"]}'
    sleep 1
    believes
    await 5 "the first address again" is_answered peer tcp $own4 80 "b1 $pod4"
    is "their rules after changes" "$(theirs)" "$before"
    stop pod
    is "their rules afterwards" "$(theirs)" "$before"
    is "what is left of ours" "$(ours)" ""
  done
done
