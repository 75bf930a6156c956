#!/usr/bin/env bash
# In a sandbox's Pod: a node with NAMES Services on 443, and TAILPOD as the manager of their certificates. Says what that
# takes in bytes when all of them are there, and in milliseconds of CPU time for each minute of nothing to do.
#
#   tailpod sandbox -- certs_pod.sh TAILPOD
set -euo pipefail
tailpod=$1
NAMES=${NAMES:-1000} MINUTE=${MINUTE:-60}
dir=$(mktemp -d "${TMPDIR:-/tmp}/tailpod-certs.XXXXXX")
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$dir"' EXIT

tailscaled --socket="$TS_SOCKET" --statedir="$dir" >"$dir/tailscaled.log" 2>&1 &
until [ -S "$TS_SOCKET" ]; do sleep 0.1; done
tailscale --socket="$TS_SOCKET" up --authkey="$(tailpod sandbox control key)"
mapfile -t labels < <(seq -f 'n%04.0f' "$NAMES")
tailpod sandbox control service "${labels[@]}" >"$dir/names"
jq -R -n '{Services: ([inputs | {
  key: "svc:\(split(".")[0])",
  value: {TCP: {"443": {HTTPS: true}}, Web: {"\(.):443": {Handlers: {"/": {Proxy: "http://127.0.0.1:1"}}}}},
}] | from_entries)}' "$dir/names" >"$dir/serve.json"
# tailscaled has got them before: an authority would not give out so many at once.
xargs tailpod sandbox control certificate 1 <"$dir/names"
curl -fsS --unix-socket "$TS_SOCKET" -X POST --data-binary "@$dir/serve.json" \
  http://local-tailscaled.sock/localapi/v0/serve-config

: >"$dir/log" # there before anybody looks
TS_STATE_DIR=$dir "$tailpod" certs run --forever >"$dir/log" 2>&1 &
manager=$!
# They begin within half a minute, four at a time.
for ((tries = 0; tries < 3000; tries++)); do
  kill -0 "$manager" 2>/dev/null || { cat "$dir/log" >&2; exit 1; }
  got=$(grep -c 'there is a certificate' "$dir/log" || true)
  [ "$got" -lt "$NAMES" ] || break
  sleep 0.1
done
[ "$got" -eq "$NAMES" ] || { tail "$dir/log" >&2; echo "$got of $NAMES certificates" >&2; exit 1; }
sleep 10

# The scheduler's own count: the ticks of /proc/PID/stat are too coarse for this.
cpu() { cat "/proc/$manager/task/"*/schedstat | awk '{ ns += $1 } END { print ns / 1000000 }'; }
before=$(cpu)
sleep "$MINUTE"
after=$(cpu)
echo "memory $(awk '$1 == "VmRSS:" { print $2 * 1024 }' "/proc/$manager/status")"
echo "anonymous $(awk '$1 == "RssAnon:" { print $2 * 1024 }' "/proc/$manager/status")"
echo "cpu $(awk -v a="$after" -v b="$before" -v m="$MINUTE" 'BEGIN { print (a - b) * 60 / m }')"
kill -TERM "$manager"
wait "$manager" || { tail "$dir/log" >&2; exit 1; }
