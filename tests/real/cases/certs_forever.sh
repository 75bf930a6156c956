# `certs run --forever` beside a node that serves nothing yet, and so does nothing by itself: the first certificate, the
# renewal once the authority says that it is time, and what the other nodes then see. SIGHUP looks at all names at once.
# personas: certs
. "$HERE/proxy.sh"
. "$HERE/acme.sh"
. "$HERE/certs.sh"
acme_start 518400
viewer_start
node_start peer
own=$NS-peer.lab.ts.net
kept=$CASE/peer-state/certs/$own.crt
subject=("$TAILPOD" certs run --forever --domain "$own" --socket "$CASE/peer/tailscaled.sock")
start run TS_STATE_DIR="$CASE/run"
hurry() { kill -HUP "${pid[run]}"; }
sleep 1
hurry # names start within 30 s, not all at once
await 40 "the certificate" test -s "$kept"
first=$(serial_in "$kept")
due "$kept"
renewed() {
  hurry
  sleep 0.5
  [ "$(serial_in "$kept")" != "$first" ]
}
await 20 "the renewal" renewed
is "orders" "$(orders "$own") of $(issued), $(ordered .replaces) a renewal" "2 of 2, 1 a renewal"
"$BIN/tailscale" --socket="$CASE/peer/tailscaled.sock" serve --bg --https=443 text:hello >/dev/null
await 10 "the new serial at the viewer" serves peer "$own" "$(serial_in "$kept")"
stop run
