# M4: the target gets other addresses (netfilter.md 14, scenario 11); it is gone for a while and returns with others, and
# in between what was known of it holds (scenario 13). Not there at start, it is waited for (boot.md W1).
# personas: containerboot boot
# original: no, it leaves its loop when the target is gone (boot.md W1)
. "$HERE/netns.sh"
netns_start
served peer 80
believes 'peers: []'
pod_run TS_TAILNET_TARGET_FQDN=WEB.lab.ts.net.
await_said pod "could not find"
believes
ready pod
await 5 "rules for the target" is_answered client tcp $pod4 80 "peer $own4"
count=$(rules | grep -c dnat)

believes 'peers: [{id: 9, name: "web.lab.ts.net.", ips: ["100.64.0.10"]}]'
is_to() { rules | grep -qF "$1"; }
await 5 "rules for the new address" is_to 100.64.0.10
await 5 "no rules for the old" eval '! is_to $peer4'
await 5 "the new address to answer" is_answered client tcp $pod4 80 "peer $own4"

believes 'peers: []'
sleep 2
answers client tcp $pod4 80 "peer $own4"
running pod || fail "it ended"
believes
await 5 "the old address again" is_to "$peer4"
answers client tcp $pod4 80 "peer $own4"
answers client tcp $pod6 80 "peer $own6"
is "rules" "$(rules | grep -c dnat)" "$count"
stop pod
