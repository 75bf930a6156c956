# The default mode: a login on every start, nothing kept. A second start is another node.
# personas: containerboot boot
key=$(auth_key)
start node "${up[@]}" TS_AUTHKEY="$key" TS_HOSTNAME="$NS-node"
ready node
is state "$(node node .BackendState)" Running
is name "$(node_fqdn node)" "$NS-node.lab.ts.net."
first=$(node_id node)
stop node

start node "${up[@]}" TS_AUTHKEY="$key" TS_HOSTNAME="$NS-node"
ready node
[ "$(node_id node)" != "$first" ] || fail "the identity survived in memory"
stop node
