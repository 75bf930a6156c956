# tailscaled is killed under requests: nothing is forwarded without an identity, and service resumes by itself.
# personas: k8s-proxy
# original: no, its node is in the same process
. "$HERE/proxy.sh"
lab_of lab:admins
first=$(child proxy tailscaled)
[ -n "$first" ] || fail "no tailscaled of its own"
kill -KILL "$first"
await 15 "another tailscaled" another_child proxy tailscaled "$first"
await 40 "service again" reaches
never_as_itself
stop proxy
