# SIGTERM while tailscaled has not even opened its socket.
# personas: containerboot boot
# original: no, it exits 1 and leaves tailscaled running (boot.md W6, W9)
printf '#!/bin/sh\nexec sleep 20\n' >"$CASE/bin/tailscaled"
chmod +x "$CASE/bin/tailscaled"
start node "${up[@]}" TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node"
await_said node "Waiting for tailscaled socket"
stop node
