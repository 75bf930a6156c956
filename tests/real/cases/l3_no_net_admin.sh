# Without CAP_NET_ADMIN it says so, what to write into the Pod, and why each way failed; nobody is told that it can serve
# (netfilter.md 14, scenario 21).
# personas: containerboot boot
# original: no, it names neither the capability nor a reason
. "$HERE/netns.sh"
netns_start
in_kubernetes
for backend in "" $backends; do
  [ -z "$backend" ] || backend "$backend"
  pod_init=(setpriv --bounding-set=-net_admin --inh-caps=-net_admin)
  pod_run "${kube_env[@]}" TS_DEST_IP="${backend4}1"
  exits pod 1 30
  for text in NET_ADMIN securityContext; do
    said pod "$text" || fail "it does not say $text"
  done
  is "endpoints in the Secret" "$(secret pod device_fqdn)$(secret pod device_ips)" ""
done
is "rules" "$(ours)" ""
