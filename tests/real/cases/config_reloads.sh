# A new config file from the operator is applied in place.
# personas: containerboot boot
key=$(auth_key)
config node "AuthKey: \"$key\""
start node TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR="$CASE/node-config" TS_STATE_DIR="$CASE/state"
ready node
config node "AuthKey: \"$key\", AdvertiseRoutes: [\"10.20.0.0/16\"]"
await_said node "tailscaled config watch: config was reloaded" 10
is routes "$(localapi node prefs | jq -c .AdvertiseRoutes)" '["10.20.0.0/16"]'
# The same bytes again are nothing to act on.
config node "AuthKey: \"$key\", AdvertiseRoutes: [\"10.20.0.0/16\"]"
sleep 1
is reloads "$(grep -c 'config was reloaded' "${log[node]}")" 1
stop node
