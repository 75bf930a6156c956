# `attach`, with and without a terminal: output of the running process, and input to it.
# personas: direct k8s-proxy proxy
. "$HERE/proxy.sh"
lab_of lab:admins
pod_start
export KUBECACHEDIR=$CASE/kubecache
both() {
  is "attached" "$(echo there | "$@" k attach -i web -c main 2>/dev/null)" "$(printf 'attached\nheard there')"
  "$@" terminal 24x80 'expect attached
    send again
    expect heard again
    close' kubectl --kubeconfig "$CASE/client.kubeconfig" attach -it web -c terminal >"$CASE/screen" 2>&1 || true
  grep -q 'heard again' "$CASE/screen" || { cat "$CASE/screen" >&2; fail "no answer on the terminal"; }
}
both
both spdy
await 5 "all four sessions to end at the kubelet" has_ended attach 4
is "sessions" "$(sessions attach)" "2 create 101,2 get 101"
seen_as "$(login client)" lab:admins
