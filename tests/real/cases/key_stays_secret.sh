# `tailpod boot` gives the key to nobody: not on a command line, not in a child's environment.
# personas: boot
key=$(auth_key)
printf '#!/bin/sh\n(cat /proc/$$/environ; echo "$@") >>%q\nexec %q "$@"\n' "$CASE/seen" "$BIN/tailscaled" >"$CASE/bin/tailscaled"
printf '#!/bin/sh\n(cat /proc/$$/environ; echo "$@") >>%q\nexec %q "$@"\n' "$CASE/seen" "$BIN/tailscale" >"$CASE/bin/tailscale"
chmod +x "$CASE/bin/tailscaled" "$CASE/bin/tailscale"
start node "${up[@]}" TS_AUTHKEY="$key" TS_HOSTNAME="$NS-node"
ready node
! grep -qaF "$key" "$CASE/seen" || fail "a child has seen the key"
stop node
