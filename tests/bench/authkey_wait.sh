# shellcheck shell=bash
# What an hour of `tailpod authkey wait` costs: memory, and CPU time. SECONDS_OF_LOAD of it are waited for and made up to
# an hour by multiplication, which is what `wait-cpu` says; that an hour has nothing else in store is shown with a paused
# clock by tests/integration/authkey/hour.rs. The original has no such command, so there are bars instead of ratios:
# 10 MB, and half a second of CPU time in the hour, which is 0.014 % of a core.
. "$(dirname "$1")/subjects.sh"

bytes_allowed=10000000
ms_allowed=500

# In milliseconds, from the scheduler's own count: the ticks of /proc/PID/stat are too coarse for this.
cpu() { cat "/proc/${pid[$1]}/task/"*/schedstat | awk '{ ns += $1 } END { print ns / 1000000 }'; }

# waiting NAME ARGUMENT...: runs it as Pod NAME, where the wait for a key that never comes is all there is.
waiting() {
  local name=$1 before bytes ms
  shift
  subject=("$TAILPOD" authkey wait --timeout 1h "$@")
  start "$name" "${in_cluster[@]}" TS_KUBE_SECRET="$name"
  await_said "$name" "Waiting for operator to provide new auth key"
  sleep "$SETTLE"
  before=$(cpu "$name")
  sleep "$SECONDS_OF_LOAD"
  ms=$(jq -n "($(cpu "$name") - $before) * 3600 / $SECONDS_OF_LOAD")
  bytes=$(awk '$1 == "VmRSS:" { print $2 * 1024 }' "/proc/${pid[$name]}/status")
  result wait-memory authkey "$name" "$bytes"
  result wait-cpu authkey "$name" "$ms"
  [ "$bytes" -le "$bytes_allowed" ] || fail "$name takes $bytes bytes"
  jq -en "$ms <= $ms_allowed" >/dev/null || fail "$name takes $ms ms in an hour"
  kill -INT "${pid[$name]}"
  exits "$name" 130
}

# A watch, as with the rights that the README names; a look every 5 s without them; a file.
service_account watching get,list,watch,patch create,list,watch
service_account polling
for name in watching polling; do make_secret "$name" authkey="$(auth_key)"; done
waiting watching
waiting polling
config config "AuthKey: \"$(auth_key)\""
waiting config --config "$CASE/config-config"
