# tailscaled is killed. As `tailpod boot` it is back in place, with the same identity and without
# a key; as containerboot the container ends, and the line names the signal.
# personas: containerboot boot
# original: no, it exits 0 (boot.md W5)
env=("${up[@]}" TS_AUTH_ONCE=true TS_STATE_DIR="$CASE/state" TS_HOSTNAME="$NS-node")
start node "${env[@]}" TS_AUTHKEY="$(auth_key once)"
ready node
id=$(node_id node) first=$(child node tailscaled)
kill -KILL "$first"
if boot; then
  await 15 "another tailscaled" another_child node tailscaled "$first"
  await 15 "the node to run again" is_running node
  is id "$(node_id node)" "$id"
  stop node
else
  await 15 "containerboot to end" gone node
  if wait "${pid[node]}"; then fail "it exits 0"; fi
  said node SIGKILL || fail "no line names the signal"
fi
