# Forwarding is switched on where it is off, not touched where it is on; where it is off and cannot be, that is said
# (netfilter.md 14, scenario 25).
# personas: containerboot boot
. "$HERE/netns.sh"
netns_start
read_only=(unshare --mount --propagation private sh -c 'mount -o bind,ro /proc/sys /proc/sys && exec "$@"' -)
forwarding 0
pod_start TS_DEST_IP="${backend4}1"
is "forwarding" "$(at pod cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding | xargs)" "1 0"
stop pod
forwarding 0
pod_start TS_DEST_IP="${backend6}1"
is "forwarding" "$(at pod cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding | xargs)" "0 1"
stop pod
pod_init=("${read_only[@]}")
forwarding 1
pod_start TS_DEST_IP="${backend4}1"
stop pod
forwarding 0
pod_run TS_DEST_IP="${backend4}1"
exits pod 1
said pod "To run tailscale as a proxy or router container, IP forwarding must be enabled." || fail "no hint"
