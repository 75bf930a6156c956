# The manifests of every variant are accepted by the API server, and the Role in them is enough: a
# boot with exactly these rights is refused nothing.
# personas: boot
# takes: 55
kubectl create namespace "$NS" >/dev/null
for options in "" "--mode one-step" "--mode always-auth --replicas 3" "--kernel --routes 10.0.0.0/8,fd00::/8" \
  "--kernel --mode one-step" "--sidecar" "--sidecar --kernel" "--secret state"; do
  # shellcheck disable=SC2086 # one word for each option
  "$TAILPOD" generate manifests boot $options --namespace "$NS" >"$CASE/manifests.yaml"
  kubectl apply --dry-run=server -f "$CASE/manifests.yaml" >"$CASE/applied" 2>&1 ||
    fail "\`$options\` is refused: $(cat "$CASE/applied")"
  is "number of objects for \`$options\`" "$(grep -c 'server dry run' "$CASE/applied")" 5
done

# Only the account, its Role and the binding are made; Pod `node-0` is us.
"$TAILPOD" generate manifests boot --name node --namespace "$NS" | kubectl apply -f - >/dev/null
mkdir -p "$CASE/node-0/serviceaccount"
printf %s "$NS" >"$CASE/node-0/serviceaccount/namespace"
cp "$LAB/pki/apiserver.crt" "$CASE/node-0/serviceaccount/ca.crt"
(umask 077 && kubectl create token node -n "$NS" >"$CASE/node-0/serviceaccount/token")
cat "$CASE/node-0/serviceaccount/token" >>"$CASE/keys"
env=("${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node-0 TS_HOSTNAME="$NS-node" POD_NAME=node-0 POD_UID=uid-1)

# The first start makes the Secret and writes an Event about its dead key.
start node-0 "${env[@]}" TS_AUTH_ONCE=true TS_AUTHKEY="$(dead_key)"
exits node-0 10 65
is "Events on the Pod" "$(kubectl get events -n "$NS" -o json | jq '[.items[] | select(.involvedObject.uid == "uid-1")] | length')" 1
# The same again: the Event that is there counts.
start node-0 "${env[@]}" TS_AUTH_ONCE=true TS_AUTHKEY="$(dead_key)"
exits node-0 10 65
# With a dead key in the Secret itself it waits for another there, with a watch.
answer() { kubectl patch secret node-0 -n "$NS" --type merge -p "{\"stringData\":{\"authkey\":\"$1\"}}" >/dev/null; }
dead=$(dead_key)
answer "$dead"
start node-0 "${env[@]}" TS_AUTH_ONCE=true
await 45 "the request for a new key" secret_is node-0 reissue_authkey "$dead"
answer "$(auth_key once)"
exits node-0 0 20
start node-0 "${env[@]}" TS_AUTH_ONCE=true
ready node-0
await 5 "the device keys" device_is_published node-0
# What a person would do in that Pod, in a rotation of its own, is allowed as well.
in_pod() {
  env -i PATH="$BIN:$PATH" TS_SOCKET="$CASE/node-0/tailscaled.sock" "${in_cluster[@]}" TS_KUBE_SECRET=node-0 POD_NAME=node-0 \
    POD_UID=uid-1 unshare --mount --propagation private "$HERE/in-pod" "$CASE/node-0" "$TAILPOD" "$@" 2>>"$CASE/in-pod.log"
}
is "failures of RBAC" "$(in_pod doctor --only rbac --json | jq .counts.failure)" 0
stop node-0

refused=$(asked node '.responseStatus.code == 403')
is "refused requests ($(recorded node | jq -c 'select(.responseStatus.code == 403) | [.verb, .objectRef.resource]' | xargs))" "$refused" 0
# Nothing is proven by what was never asked: each line of the Role was used, but for `update`. Boot and tailscaled ask for
# that right and do not start without it; a tailscaled that may `patch` then makes no use of it.
for right in secrets:get secrets:patch secrets:create secrets:list secrets:watch events:get events:create events:patch; do
  [ "$(asked node ".objectRef.resource == \"${right%:*}\" and .verb == \"${right#*:}\"")" != 0 ] || fail "$right was never used"
done
