# shellcheck shell=bash
# What the manager of a thousand certificates costs, in the sandbox: memory when it has all of them, CPU time in a minute
# in which nothing is due, and a change of all names at once in optimised code. The original has no such command beside
# tailscaled, so there are bars instead of ratios: 12 MB, 0.1 % of a core, and 20 ms, which the test itself holds.
. "$(dirname "$1")/subjects.sh"

bytes_allowed=12000000
ms_allowed=60

setsid env -i PATH="$BIN:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME="$CASE" TMPDIR="$CASE" \
  "$TAILPOD" sandbox -- "$(dirname "$1")/certs_pod.sh" "$TAILPOD" >"$CASE/costs" 2>"$CASE/costs.log" &
await 600 "the costs of a thousand names" grep -q '^cpu ' "$CASE/costs"
cost() { awk -v what="$1" '$1 == what { print $2 }' "$CASE/costs"; }
result certs-memory certs 1000names "$(cost memory)"
result certs-memory-anonymous certs 1000names "$(cost anonymous)"
result certs-cpu certs 1000names "$(cost cpu)"
[ "$(cost memory)" -le "$bytes_allowed" ] || fail "a thousand names take $(cost memory) bytes"
jq -en "$(cost cpu) <= $ms_allowed" >/dev/null || fail "a thousand names take $(cost cpu) ms in a minute"

# `run` has built it, while there was a way to the sources.
"$ENSURE" thousand >"$CASE/ensure.log" 2>&1 || fail "$(tail -n 5 "$CASE/ensure.log")"
result certs-ensure certs 1000names "$(cat "$ENSURE_FIGURE")"
