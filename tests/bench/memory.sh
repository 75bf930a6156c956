# shellcheck shell=bash
# Resident memory in steady state, in a small tailnet and in a large one. VmRSS counts the pages of
# the binary that happen to be in memory; the anonymous part alone is beside it.
. "$(dirname "$1")/subjects.sh"

sample() {
  local who=$1 mode=$2 field
  become "$who"
  service_account "$who-$mode"
  pod_env "$who-$mode"
  start "$who-$mode" "${env[@]}"
  ready "$who-$mode" 60
  sleep "$SETTLE"
  for field in VmRSS:memory RssAnon:memory-anonymous; do
    result "${field#*:}" "$who" "$mode" \
      "$(awk -v f="${field%%:*}:" '$1 == f { print $2 * 1024 }' "/proc/${pid[$who-$mode]}/status")"
  done
  stop "$who-$mode"
}

for who in "${subjects[@]}"; do sample "$who" small; done
control POST "/peers?count=$PEERS"
for who in "${subjects[@]}"; do sample "$who" "${PEERS}peers"; done
