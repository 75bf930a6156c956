# The options of `tailscale up` have the same effect with the tool (containerboot) and through the
# LocalAPI alone (`tailpod boot`, where the tool never runs).
# personas: containerboot boot
printf '#!/bin/sh\necho ran >>%q\nexec %q "$@"\n' "$CASE/tool" "$BIN/tailscale" >"$CASE/bin/tailscale"
chmod +x "$CASE/bin/tailscale"
start node TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node" TS_ROUTES=10.20.0.0/16,10.1.0.0/24 TS_ACCEPT_DNS=true \
  TS_EXTRA_ARGS="--login-server=$CONTROL --advertise-tags=tag:lab,tag:web --accept-routes --shields-up=true --ssh --snat-subnet-routes=false --advertise-exit-node"
ready node
is preferences "$(localapi node prefs | jq -c '[.ControlURL, .Hostname, .CorpDNS, .RouteAll, .ShieldsUp, .RunSSH, .NoSNAT, .AdvertiseTags, (.AdvertiseRoutes | sort)]')" \
  "[\"$CONTROL\",\"$NS-node\",true,true,true,true,true,[\"tag:lab\",\"tag:web\"],[\"0.0.0.0/0\",\"10.1.0.0/24\",\"10.20.0.0/16\",\"::/0\"]]"
# And control heard of them.
is tags "$(control GET /nodes | jq -c --arg id "$(node_id node)" '.[] | select(.id == $id) | .tags')" '["tag:lab","tag:web"]'
if boot; then
  [ ! -e "$CASE/tool" ] || fail "the tailscale command ran"
else
  is "number of commands" "$(wc -l <"$CASE/tool")" 1
fi
stop node
