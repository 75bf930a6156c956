# `port-forward`: several connections at once through one session, whole, in both directions.
# personas: direct k8s-proxy proxy
. "$HERE/proxy.sh"
lab_of lab:admins
pod_start
head -c 20000000 /dev/urandom >"$POD/file"
there=$(lab_port)
subject=(python3 -m http.server --bind 127.0.0.1 --directory "$POD" "$there")
start web
listens() { (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
await 10 "the server in the Pod" listens "$there"
both() {
  local here=$1 n fetches=()
  shift
  export KUBECACHEDIR=$CASE/kubecache
  "$@" setsid kubectl --kubeconfig "$CASE/client.kubeconfig" port-forward web "$here:$there" >"$CASE/forward.$here" 2>&1 &
  pid[forward-$here]=$!
  await 10 "the forwarded port" listens "$here"
  for n in 1 2 3; do
    curl -sS --max-time 30 "http://127.0.0.1:$here/file" | md5sum >"$CASE/got.$n" &
    fetches+=($!)
  done
  wait "${fetches[@]}"
  for n in 1 2 3; do is "file $n" "$(cat "$CASE/got.$n")" "$(md5sum <"$POD/file")"; done
  kill "${pid[forward-$here]}"
}
both "$(lab_port)" env
both "$(lab_port)" env KUBECTL_PORT_FORWARD_WEBSOCKETS=false
is "sessions" "$(sessions portforward)" "1 create 101,1 get 101"
seen_as "$(login client)" lab:admins
