# The node gets another address, and its first one back: what is there is always for the one it has (netfilter.md 14,
# scenarios 2 and 6; 7: the regression of the first containerboot).
# personas: boot
# original: no, the rules for each address it ever had stay (netfilter.md N2, N8)
. "$HERE/netns.sh"
# mapped OWN: only that is translated.
mapped() {
  local other=100.64.0.3
  [ "$1" != $other ] || other=$own4
  is_answered peer tcp "$1" 80 "b1 $pod4" && ! rules | grep -qF "$other"
}
for target in TS_DEST_IP="${backend4}1" TS_EXPERIMENTAL_DEST_DNS_NAME=app.test; do
  netns_start
  address pod tailscale0 100.64.0.3/10
  served b1 80
  named_app 1
  tailscaled_rules nftables
  believes
  pod_start "$target"
  await 10 "rules for the first address" mapped $own4
  count=$(rules | wc -l)
  for own in 100.64.0.3 $own4 100.64.0.3 $own4; do
    believes 'self: {ips: ["'$own'", "'$own6'"]}'
    await 5 "rules for $own alone" mapped "$own"
    is "lines of rules" "$(rules | wc -l)" "$count"
  done
  stop pod
done
# What leaves for the tailnet has the address that the node has.
netns_start
address pod tailscale0 100.64.0.3/10
served peer 80
believes
pod_start TS_TAILNET_TARGET_IP=$peer4
answers client tcp $pod4 80 "peer $own4"
count=$(rules | wc -l)
believes 'self: {ips: ["100.64.0.3", "'$own6'"]}'
await 5 "the other source" is_answered client tcp $pod4 80 "peer 100.64.0.3"
is "lines of rules" "$(rules | wc -l)" "$count"
stop pod
