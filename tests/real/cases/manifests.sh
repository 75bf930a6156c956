# The manifests of every variant are accepted by the API server, and the Role in them is enough: a
# boot with exactly these rights is refused nothing.
# personas: boot
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
start node-0 "${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node-0 TS_AUTH_ONCE=true TS_AUTHKEY="$(auth_key)" \
  TS_HOSTNAME="$NS-node" POD_NAME=node-0 POD_UID=uid-1
ready node-0
await 5 "the device keys" device_is_published node-0
stop node-0
refused=$(jq -s --arg user "system:serviceaccount:$NS:node" \
  '[.[] | select(.user.username == $user and .responseStatus.code == 403)] | length' "$LAB/audit.log")
is "number of refused requests" "$refused" 0
[ "$(requests node update)" != 0 ] || [ "$(requests node patch)" != 0 ] || fail "it wrote nothing, so nothing is proven"
