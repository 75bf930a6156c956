# The node key expires and a key is at hand: `tailpod boot` logs in again, in place.
# personas: boot
start node "${up[@]}" TS_AUTHKEY="$(auth_key)" TS_STATE_DIR="$CASE/state" TS_HOSTNAME="$NS-node"
ready node
old=$(node node .Self.PublicKey)
id=$(node_id node)
has_new_key() { is_running node && [ "$(node node .Self.PublicKey)" != "$old" ]; }
control POST "/nodes/$id/expire"
await 45 "the node to run with another node key" has_new_key
is id "$(node_id node)" "$id"
running node || fail "it ended"
stop node
