# As PID 1 of a container: strangers' orphans are reaped, and a stop is a stop.
# personas: containerboot boot
# original: no, it leaves orphans as zombies (boot.md W23)
INIT=(unshare --pid --fork --kill-child --mount-proc)
# A daemon that leaves a child to PID 1 and then becomes tailscaled.
printf '#!/bin/sh\n(sh -c "sleep 0.5; exit 3" &)\nexec %q "$@"\n' "$BIN/tailscaled" >"$CASE/bin/tailscaled"
chmod +x "$CASE/bin/tailscaled"
start node "${up[@]}" TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node"
ready node
no_zombies() { ! ps -o state= -s "${pid[node]}" | grep -q Z; }
sleep 1
await 5 "the orphan to be reaped" no_zombies
# The signal has to reach PID 1 of the container, not the unshare in front of it.
kill -TERM "$(pgrep -P "${pid[node]}")"
exits node 0
