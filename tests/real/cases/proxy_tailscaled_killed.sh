# tailscaled is killed under requests: nothing is forwarded without an identity, and service resumes by itself.
# personas: k8s-proxy proxy proxy-tun
# original: no, its node is in the same process
# takes: 30
. "$HERE/proxy.sh"
proxy_env=("${soon_withdrawn[@]}")
lab_of lab:admins
case $PERSONA in
k8s-proxy)
  first=$(child proxy tailscaled)
  [ -n "$first" ] || fail "no tailscaled of its own"
  kill -KILL "$first"
  await 15 "another tailscaled" another_child proxy tailscaled "$first"
  ;;
*)
  kill -KILL "${pid[peer]}"
  wait "${pid[peer]}" 2>/dev/null || true
  rm "$CASE/peer/tailscaled.sock"
  sleep 1
  running proxy || fail "it ended with tailscaled"
  if reaches 2>/dev/null; then fail "there is an answer"; fi
  case $PERSONA in
  proxy-tun) TUN=tailpod0 node_run peer ;;
  *) node_run peer ;;
  esac
  ;;
esac
await 40 "service again" reaches
seen_as "$(login client)" lab:admins
stop proxy
