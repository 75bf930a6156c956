# Somebody flushes all rules: ours are back within 60 s, with one line in the log (netfilter.md 14, scenario 23).
# personas: boot
# original: no, nobody looks again
# limit: 200
# takes: 120
. "$HERE/netns.sh"
netns_start
served b1 80
# The first is the node's, the second a Service's.
in_kubernetes
egress_service web 10001 | mounted egress-services
pod_start "${kube_env[@]}" TS_EGRESS_PROXIES_CONFIG_PATH="$CASE/proxies" TS_DEST_IP="${backend4}1"
await 10 "the status" secret_has pod egress-services
# Each table as it was; which of the two nft lists first is which of the two was put back first.
tables() { ours nft | sort -s -k 2,3; }
before=$(tables)
tailscaled_rules nftables
lines=$(wc -l <"${log[pod]}")
at pod nft flush ruleset
tailscaled_rules nftables
restored() { [ "$(tables)" = "$before" ]; }
await 62 "the rules" restored
answers peer tcp $own4 80 "b1 $pod4"
tail -n +$((lines + 1)) "${log[pod]}" >&2
is "lines about it" "$(tail -n +$((lines + 1)) "${log[pod]}" | grep -cE 'tailpod_(l3|egress)')" 2
# Only one rule, by hand.
at pod nft flush chain ip tailpod_l3 tp_pre
await 62 "the rules again" restored
stop pod
