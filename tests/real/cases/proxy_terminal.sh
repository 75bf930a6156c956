# `exec -it`: a terminal of the client's size, which follows it when that changes, and the exit code of the shell.
# personas: direct k8s-proxy proxy
. "$HERE/proxy.sh"
lab_of lab:admins
pod_start
export KUBECACHEDIR=$CASE/kubecache
session() {
  local got=0
  "$@" terminal 24x80 'expect #
    send stty size
    expect 24 80
    resize 40x132
    send sleep 0.3; stty size
    expect 40 132
    send echo to"get"her
    expect together
    send exit 7' kubectl --kubeconfig "$CASE/client.kubeconfig" exec -it web -c terminal -- env PS1='# ' sh >"$CASE/screen" 2>&1 || got=$?
  [ "$got" = 7 ] || { cat "$CASE/screen" >&2; fail "exit code is $got, want 7"; }
}
session
session spdy
is "sessions" "$(sessions exec)" "1 create 101,1 get 101"
seen_as "$(login client)" lab:admins
