# Watches: every event arrives as it happens, and a client that has gone is gone at the API server too.
# personas: direct k8s-proxy proxy
. "$HERE/proxy.sh"
lab_of lab:admins
k create configmap before >/dev/null
KUBECONFIG=$CASE/client.kubeconfig KUBECACHEDIR=$CASE/kubecache setsid kubectl get configmaps --watch -o name >"$CASE/watched" &
pid[watch]=$!
sees() { grep -q "^configmap/$1\$" "$CASE/watched"; }
shown() { k create configmap "$1" >/dev/null && await 2 "$1 to be seen" sees "$1"; }
await 5 "the watch to have begun" sees before
for name in one two three; do shown "$name"; done
# Quiet for a while is no reason to end it.
sleep 3
shown late
running watch || fail "the watch has ended"

# The API server notes the end of a watch when it is over: there is no such line yet, and soon there is.
ended_watches() { jq -c 'select(.verb == "watch" and .stage == "ResponseComplete" and .objectRef.namespace == env.NS)' "$LAB/audit.log" | wc -l; }
more_than() { [ "$(ended_watches)" -gt "$1" ]; }
if ! direct; then
  before=$(ended_watches)
  kill -KILL "${pid[watch]}"
  await 3 "the API server to hear that the client has gone" more_than "$before"
fi
seen_as "$(login client)" lab:admins
