# shellcheck shell=bash
# What an hour of `tailpod authkey wait` costs: memory, and CPU time over a minute of it. The original has no such
# command, so there are bars instead of ratios: 10 MB, and one tick of the kernel's clock in a minute.
. "$(dirname "$1")/subjects.sh"

bytes_allowed=10000000
ms_allowed=10

cpu() { awk -v hz="$(getconf CLK_TCK)" '{ print ($14 + $15) * 1000 / hz }' "/proc/${pid[$1]}/stat"; }

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
  ms=$(jq -n "($(cpu "$name") - $before) * 60 / $SECONDS_OF_LOAD")
  bytes=$(awk '$1 == "VmRSS:" { print $2 * 1024 }' "/proc/${pid[$name]}/status")
  result wait-memory authkey "$name" "$bytes"
  result wait-cpu authkey "$name" "$ms"
  [ "$bytes" -le "$bytes_allowed" ] || fail "$name takes $bytes bytes"
  jq -en "$ms <= $ms_allowed" >/dev/null || fail "$name takes $ms ms in a minute"
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
