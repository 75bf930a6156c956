# Options that changed between two starts on the same state are applied, and the log says so.
# personas: boot
preference() { localapi node prefs | jq -r ".$1"; }
env=(TS_STATE_DIR="$CASE/state" TS_AUTHKEY="$(auth_key)")
start node "${env[@]}" TS_HOSTNAME="$NS-a" TS_EXTRA_ARGS="--login-server=$CONTROL --shields-up"
ready node
is hostname "$(preference Hostname)" "$NS-a"
is shields-up "$(preference ShieldsUp)" true
stop node

start node "${env[@]}" TS_HOSTNAME="$NS-b" TS_EXTRA_ARGS="--login-server=$CONTROL"
ready node
is hostname "$(preference Hostname)" "$NS-b"
grep -qE "$NS-a.* -> .*$NS-b" "${log[node]}" || fail "no line says old -> new"
stop node

# What is not named any more stays, until --reset.
start node "${env[@]}" TS_HOSTNAME="$NS-b" TS_EXTRA_ARGS="--login-server=$CONTROL --reset"
ready node
is shields-up "$(preference ShieldsUp)" false
stop node
