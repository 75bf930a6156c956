# Services are advertised as the file says, at once, and withdrawn on stop; what was advertised by hand stays, also over
# a restart.
# personas: containerboot boot
# original: no, it advertises a changed file only with the next netmap, and forgets what was there
advertised() { [ "$(localapi node prefs | jq -c '.AdvertiseServices // [] | sort')" = "$1" ]; }
services() { jq -n '{Services: [$ARGS.positional[] | {key: ., value: {TCP: {"80": {TCPForward: "localhost:1"}}}}] | from_entries}' --args "$@"; }
again() {
  start node "${up[@]}" TS_STATE_DIR="$CASE/state" TS_AUTH_ONCE=true TS_AUTHKEY="$key" TS_HOSTNAME="$NS-node" \
    TS_SERVE_CONFIG="$CASE/config.json" TAILPOD_WITHDRAW_WAIT=1s
  ready node
}

key=$(auth_key)
services svc:a svc:b >"$CASE/config.json"
again
await 10 "both" advertised '["svc:a","svc:b"]'
services svc:b svc:c >"$CASE/config.json"
await 10 "the change" advertised '["svc:b","svc:c"]'
curl -sS --max-time 10 --unix-socket "$CASE/node/tailscaled.sock" -X PATCH -o "$CASE/patched" \
  -d '{"AdvertiseServices": ["svc:b", "svc:c", "svc:hand"], "AdvertiseServicesSet": true}' \
  http://local-tailscaled.sock/localapi/v0/prefs
services svc:c >"$CASE/config.json"
await 10 "ours are changed, others stay" advertised '["svc:c","svc:hand"]'
stop node
said node 'unadvertising services: ["svc:c", "svc:hand"]'
said node 'the next start advertises again what is not ours: {"svc:hand"}'
echo '{}' >"$CASE/config.json"
again
await 10 "what was advertised by hand is again" advertised '["svc:hand"]'
stop node
