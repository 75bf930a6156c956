# The documented format for Services means what `tailscale serve set-config` makes of it. (It refuses
# tls-terminated-tcp, which the documentation has.)
# personas: boot
cat >"$CASE/services.json" <<'CONFIG'
{"version": "0.0.1", "services": {
  "svc:web": {"endpoints": {"tcp:443": "https://localhost:8443", "tcp:80": "http://localhost:8080",
                            "tcp:8080": "https+insecure://localhost:9443"}},
  "svc:db": {"endpoints": {"tcp:5432-5434": "tcp://localhost:15432-15434"},
             "advertised": false},
  "svc:dir": {"endpoints": {"tcp:443": "file:///srv"}}}}
CONFIG
service_account node
# svc:dir has no certificate in a tailnet without an authority, and set-config does not wait for one.
start node "${up[@]}" TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node" TS_SERVE_CONFIG="$CASE/services.json" \
  TAILPOD_ADVERTISE_WITHOUT_CERT=true TAILPOD_WITHDRAW_WAIT=0s
ready node
advertised() { [ "$(localapi "$1" prefs | jq -c '.AdvertiseServices // [] | sort')" = "$2" ]; }
await 10 "Services" advertised node '["svc:dir","svc:web"]'
localapi node serve-config | jq -S . >"$CASE/ours.json"
stop node

start cli "${up[@]}" TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-cli" TS_EXPERIMENTAL_SERVICE_AUTO_ADVERTISEMENT=false TAILPOD_WITHDRAW_WAIT=0s
ready cli
"$BIN/tailscale" --socket="$CASE/cli/tailscaled.sock" serve set-config --all "$CASE/services.json" >"$CASE/cli.out" 2>&1 ||
  fail "set-config: $(cat "$CASE/cli.out")"
localapi cli serve-config | jq -S . >"$CASE/theirs.json"
diff "$CASE/theirs.json" "$CASE/ours.json" || fail "it means something else to set-config"
advertised cli '["svc:dir","svc:web"]' || fail "set-config advertises $(localapi cli prefs | jq -c .AdvertiseServices)"
stop cli
