# The Services of TS_SERVE_CONFIG are advertised, no more when they leave it, and none from the request to stop on: the
# node is then there for a while for those who are still coming.
# personas: containerboot
# takes: 20
. "$HERE/proxy.sh"
. "$HERE/certs.sh"
services() {
  jq -n '{Services: ([$ARGS.positional[] | {key: ., value: {TCP: {"80": {HTTP: true}}, Web: {(ltrimstr("svc:") + ".lab.ts.net:80"):
    {Handlers: {"/": {Text: "hello"}}}}}}] | from_entries)}' --args "$@" >"$CASE/serve.json.new"
  mv "$CASE/serve.json.new" "$CASE/serve.json"
}
services svc:shop svc:desk
pod node "${up[@]}" TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node" TS_STATE_DIR="$CASE/state" TS_SERVE_CONFIG="$CASE/serve.json"
ready node
advertised() { localapi node prefs | jq -c '.AdvertiseServices // [] | sort'; }
advertises() { [ "$(advertised)" = "$1" ]; }
await 10 "both Services" advertises '["svc:desk","svc:shop"]'
services svc:shop
await 30 "one to go" advertises '["svc:shop"]'
kill -TERM "${pid[node]}"
began=$SECONDS
await 5 "the other to go" advertises '[]'
exits node 0 30
[ $((SECONDS - began)) -ge 15 ] || fail "it was gone after $((SECONDS - began)) s"
