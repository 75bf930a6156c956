# shellcheck shell=bash
# The firewall of the Pod of lib/netns.sh, which sources this: what is in it, whose it is, and what a real tailscaled adds.

# rules [PROGRAM...]: everything that the namespace has, whoever made it how, or what these programs know of it, a line for
# each rule, set and chain; without what counts packets, and without the chains that iptables makes by itself and leaves
# behind. iptables-nft tells in its own words what nft lists too: some of it nft does not show.
rules() {
  local program
  [ $# != 0 ] || set -- nft iptables-legacy-save ip6tables-legacy-save iptables-nft-save ip6tables-nft-save
  for program; do
    case $program in nft) rules_of_nft ;; *) rules_of_iptables "$program" ;; esac
  done
}
rules_of_nft() {
  at pod nft list ruleset 2>/dev/null | awk '
    /^#/ { next }
    /^table / { table = $2 " " $3; next }
    /^\t(chain|set|map) / { block = $2; if (block !~ /^[A-Z]+$/ || $1 != "chain") print "nft", table, $1, block; next }
    /^\t?}/ { next }
    /^\t\ttype .* hook .*policy accept;$/ && block ~ /^[A-Z]+$/ { next }
    { sub(/^[\t ]+/, ""); gsub(/counter packets [0-9]+ bytes [0-9]+ */, "") } /./ { print "nft", table, block ": " $0 }'
}
rules_of_iptables() {
  { at pod "$1" 2>/dev/null || true; } | awk -v program="${1%-save}" '
    /^[*]/ { table = substr($0, 2) }
    /^:/ && $2 == "-" { print program, table, $1 }
    /^-A/ { print program, table, $0 }'
}
# ours [PROGRAM...]: what is ours of it; theirs: the rest.
ours() { rules "$@" | grep -E ' tailpod_|TAILPOD-' || true; }
theirs() { rules | grep -vE ' tailpod_|TAILPOD-' || true; }

# tailscaled_rules BACKEND: what a tailscaled in kernel mode adds (netfilter.md 4), which masquerades what comes from
# the tailnet and so brings the answers back through the Pod.
tailscaled_rules() {
  local program
  case $1 in
  nftables)
    for family in ip ip6; do
      at pod nft -f - <<NFT
add table $family filter
add table $family nat
add chain $family filter INPUT { type filter hook input priority 0; policy accept; }
add chain $family filter FORWARD { type filter hook forward priority 0; policy accept; }
add chain $family nat POSTROUTING { type nat hook postrouting priority 100; policy accept; }
add chain $family filter ts-input
add chain $family filter ts-forward
add chain $family nat ts-postrouting
add rule $family filter INPUT counter jump ts-input
add rule $family filter FORWARD counter jump ts-forward
add rule $family nat POSTROUTING counter jump ts-postrouting
add rule $family filter ts-input iifname "tailscale0" counter accept
add rule $family filter ts-forward iifname "tailscale0" counter meta mark set meta mark and 0xff00ffff or 0x40000
add rule $family filter ts-forward meta mark and 0xff0000 == 0x40000 counter accept
$([ "$family" = ip6 ] || echo 'add rule ip filter ts-forward oifname "tailscale0" ip saddr 100.64.0.0/10 counter drop')
add rule $family filter ts-forward oifname "tailscale0" counter accept
add rule $family nat ts-postrouting meta mark and 0xff0000 == 0x40000 counter masquerade
NFT
    done
    ;;
  *)
    for program in "$1" "ip6${1#ip}"; do
      at pod "$program-restore" --noflush <<IPTABLES
*filter
:ts-input - [0:0]
:ts-forward - [0:0]
-A INPUT -j ts-input
-A FORWARD -j ts-forward
-A ts-input -i tailscale0 -j ACCEPT
-A ts-forward -i tailscale0 -j MARK --set-xmark 0x40000/0xff0000
-A ts-forward -m mark --mark 0x40000/0xff0000 -j ACCEPT
$(case $program in iptables*) echo '-A ts-forward -s 100.64.0.0/10 -o tailscale0 -j DROP' ;; esac)
-A ts-forward -o tailscale0 -j ACCEPT
COMMIT
*nat
:ts-postrouting - [0:0]
-A POSTROUTING -j ts-postrouting
-A ts-postrouting -m mark --mark 0x40000/0xff0000 -j MASQUERADE
COMMIT
IPTABLES
    done
    ;;
  esac
}

# clear_rules: what the original leaves behind is not to be in the way.
clear_rules() {
  at pod nft flush ruleset
  for program in iptables-legacy ip6tables-legacy; do
    at pod "$program" -t nat -F
    at pod "$program" -t mangle -F
  done
}
