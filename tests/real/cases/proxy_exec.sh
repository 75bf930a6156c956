# Commands in a Pod, over WebSocket and over SPDY: their output, their input, their exit code.
# personas: direct k8s-proxy proxy proxy-serve proxy-tun
. "$HERE/proxy.sh"
lab_of lab:admins
pod_start
both() {
  local got=0
  is "output" "$("$@" k exec web -c main -- sh -c 'echo out; echo err >&2' 2>/dev/null)" out
  is "errors" "$("$@" k exec web -c main -- sh -c 'echo out; echo err >&2' 2>&1 >/dev/null)" err
  is "input" "$(printf 'a\nb\n' | "$@" k exec -i web -c main -- wc -l)" 2
  "$@" k exec web -c main -- sh -c 'exit 3' 2>/dev/null || got=$?
  is "exit code" "$got" 3
  got=0
  "$@" k exec web -c main -- false 2>/dev/null || got=$?
  is "exit code of false" "$got" 1
}
both
both spdy
is "sessions" "$(sessions exec)" "5 create 101,5 get 101"
seen_as "$(login client)" lab:admins
