# SIGTERM with a watch and a session open: no new requests, what is open is closed within the time that is allowed, and
# it exits 0. A Service is withdrawn first, which takes 20 s; or as long as one likes: that is shown beside somebody else's
# tailscaled.
# personas: k8s-proxy proxy proxy-serve
# original: no, it exits non-zero whenever a watch is open (api-proxy.md 13)
# takes: 30
. "$HERE/proxy.sh"
[ "$PERSONA" != proxy-serve ] || proxy_env=(TAILPOD_WITHDRAW_WAIT=3s)
lab_of lab:admins
pod_start
export KUBECACHEDIR=$CASE/kubecache
setsid kubectl --kubeconfig "$CASE/client.kubeconfig" get configmaps --watch -o name >"$CASE/watched" 2>&1 &
pid[watch]=$!
setsid kubectl --kubeconfig "$CASE/client.kubeconfig" exec web -c main -- sh -c 'echo begun; sleep 100' >"$CASE/session" 2>&1 &
pid[session]=$!
await 10 "the session" grep -q begun "$CASE/session"
k create configmap seen >/dev/null
await 5 "the watch" grep -q seen "$CASE/watched"
began=$SECONDS
kill -TERM "${pid[proxy]}"
exits proxy 0 35
case $PERSONA in
k8s-proxy) [ $((SECONDS - began)) -ge 19 ] || fail "the Service was there for $((SECONDS - began)) s" ;;
proxy-serve) [ $((SECONDS - began)) -ge 2 ] || fail "the Service was there for $((SECONDS - began)) s" ;;
esac
await 2 "the session to end at the kubelet" has_ended exec 1
await 5 "the client of the session to end" gone session
