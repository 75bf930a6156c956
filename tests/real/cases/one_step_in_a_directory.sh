# One-step: the config file is all that tailscaled gets, and the command line tool never runs.
# personas: containerboot boot
printf '#!/bin/sh\necho ran >>%q\nexit 1\n' "$CASE/tool" >"$CASE/bin/tailscale"
chmod +x "$CASE/bin/tailscale"
config node "AuthKey: \"$(auth_key)\""
start node TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR="$CASE/node-config" TS_STATE_DIR="$CASE/state"
ready node
is name "$(node_fqdn node)" "$NS-node.lab.ts.net."
id=$(node_id node)
stop node

start node TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR="$CASE/node-config" TS_STATE_DIR="$CASE/state"
ready node
is id "$(node_id node)" "$id"
stop node
[ ! -e "$CASE/tool" ] || fail "the tailscale command ran"
