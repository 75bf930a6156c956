# A node that keeps its certificates itself: its Service on 443 is advertised when tailscaled has got one, which it is asked
# for once; one that the authority refuses is held back, and others are advertised meanwhile.
# personas: boot
. "$HERE/proxy.sh"
. "$HERE/acme.sh"
. "$HERE/certs.sh"
acme_start 7776000 blocked.lab.ts.net
shop=$NS-shop.lab.ts.net
cert_domains "$shop" blocked.lab.ts.net
jq -n --arg shop "$shop:443" '{TCP: {"443": {HTTPS: true}}, Web: {($shop): {Handlers: {"/": {Text: "hello"}}},
  "blocked.lab.ts.net:443": {Handlers: {"/": {Text: "hello"}}}}} as $https
  | {Services: {"svc:shop": ($https | del(.Web["blocked.lab.ts.net:443"])), "svc:blocked": ($https | del(.Web[$shop])),
     "svc:plain": {TCP: {"80": {TCPForward: "localhost:1"}}}}}' >"$CASE/serve.json"
pod own "${up[@]}" "${acme_env[@]}" SSL_CERT_FILE="$CASE/ca.crt" TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-own" \
  TS_STATE_DIR="$CASE/own/state" TS_SERVE_CONFIG="$CASE/serve.json" TAILPOD_WITHDRAW_WAIT=0s
ready own
advertises() { [ "$(localapi own prefs | jq -c '.AdvertiseServices // [] | sort')" = "$1" ]; }
await 20 "what can be used" advertises '["svc:plain","svc:shop"]'
is "orders" "$(orders "$shop")" 1
said own 'svc:blocked is not advertised yet: it listens on 443 only, and has no certificate'
advertises '["svc:plain","svc:shop"]' || fail "one that is held back is advertised"
stop own
