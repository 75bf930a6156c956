# The rights in the manifests are enough: with the account, the Secrets, the variables and the command that are in them,
# and a key and a control server filled in, the proxy comes up and a client gets through as one of the groups given.
# original: no, it has no manifests
# personas: k8s-proxy proxy
. "$HERE/proxy.sh"
. "$HERE/acme.sh"
ours=$NS-proxy
proxy_url() { if [ "$PERSONA" = proxy ]; then echo "https://$ours.lab.ts.net"; else echo "https://$service_domain"; fi; }

# mounted NAME: what the kubelet mounts for the account.
mounted() {
  mkdir -p "$CASE/$1/serviceaccount"
  printf %s "$NS" >"$CASE/$1/serviceaccount/namespace"
  cp "$LAB/pki/apiserver.crt" "$CASE/$1/serviceaccount/ca.crt"
  (umask 077 && kubectl create token "$ours" -n "$NS" >"$CASE/$1/serviceaccount/token")
  cat "$CASE/$1/serviceaccount/token" >>"$CASE/keys"
}

# container FILTER: a jq filter over the Pod of the Deployment.
container() { kubectl get deployment "$ours" -n "$NS" -o json | jq -r --arg key "$key" ".spec.template.spec | $1"; }

# variables CONTAINERS: as the kubelet fills them in.
variables() {
  # shellcheck disable=SC2016 # expands in jq
  container "$1"'[0].env[] | .name + "=" + (.value // if .valueFrom.secretKeyRef then $key else
    {"metadata.name": "a-pod-of-any-name", "metadata.uid": "uid-1", "status.podIP": "127.0.0.1"}[.valueFrom.fieldRef.fieldPath] end)'
}

# up_again: the containers of the Pod, in their order.
up_again() {
  local given
  if [ "$PERSONA" = proxy ]; then
    mapfile -t given < <(variables .initContainers)
    subject=("$TAILPOD" boot)
    start node "${in_cluster[@]}" KUBERNETES_SERVICE_PORT="$KUBE_PORT" "${up[@]}" SSL_CERT_FILE="$CASE/ca.crt" "${acme_env[@]}" \
      "${given[@]}"
    ready node
    # shellcheck disable=SC2016 # expands in jq
    mapfile -t subject < <(container '.containers[0].command[]')
    is "the program" "${subject[0]}" tailpod
    subject=("$TAILPOD" "${subject[@]:1}")
    subject=("${subject[@]/#\/tmp\/tailscaled.sock/$CASE/node/tailscaled.sock}")
    start proxy "${in_cluster[@]}" KUBERNETES_SERVICE_PORT="$KUBE_PORT"
  else
    mapfile -t given < <(variables .containers)
    subject=("$LAB/bin/$(container '.containers[0].command[]')")
    start proxy "${in_cluster[@]}" KUBERNETES_SERVICE_PORT="$KUBE_PORT" TS_NO_LOGS_NO_SUPPORT=true \
      TAILPOD_WITHDRAW_WAIT=1s SSL_CERT_FILE="$CASE/ca.crt" "${acme_env[@]}" "${given[@]}"
  fi
  await 30 "the node of the proxy" is_node proxy
  await_said proxy "API server proxy in auth mode is listening on"
}
down() {
  stop proxy
  [ "$PERSONA" = k8s-proxy ] || stop node
}

kubectl create namespace "$NS" >/dev/null
key=$(auth_key)
options=(--name "$ours" --namespace "$NS" --groups lab:admins)
[ "$PERSONA" = proxy ] || options+=(--listener serve --tailnet lab.ts.net --service svc:kube)
"$TAILPOD" generate manifests proxy "${options[@]}" >"$CASE/manifests.yaml"
kubectl apply --server-side -f "$CASE/manifests.yaml" >/dev/null 2>"$CASE/applied" || fail "$(cat "$CASE/applied")"
# shellcheck disable=SC2046 # a rule has no spaces
grants $("$TAILPOD" generate manifests proxy "${options[@]}" --policy | jq -c ".grants[0].app[\"$grants_of_kubernetes\"][]")
acme_start
# What a person fills in; the control server because it is not that of everybody.
if [ "$PERSONA" = k8s-proxy ]; then
  config=$(secret "$ours-config" config.hujson | jq --arg key "$key" --arg url "$CONTROL" '.authKey = $key | .serverURL = $url')
  kubectl patch secret "$ours-config" -n "$NS" -p "$(jq -n --arg config "$config" '{stringData: {"config.hujson": $config}}')" >/dev/null
  mounted proxy
else
  mounted node
  mounted proxy
fi
up_again
[ "$PERSONA" = proxy ] || control POST "/nodes/$(node_id_of proxy)/service"
client_start
admins
await 30 "the proxy to answer" reaches
k get secrets >/dev/null
port=$(container '.containers[0].ports[0].containerPort')
for path in readyz livez metrics; do
  is "/$path" "$(curl -s -o /dev/null -w '%{http_code}' --max-time 5 "http://127.0.0.1:$port/$path")" 200
done

# Another Pod, of another name, is the same node with the same certificate.
orders=$(issued) node=$(node_id_of proxy)
down
up_again
await 30 "the next Pod to answer" reaches
is "the node" "$(node_id_of proxy)" "$node"
[ "$PERSONA" = proxy ] || is "orders" "$(issued)" "$orders"

# shellcheck disable=SC2016 # expands in jq
own=$(recorded "$ours")
refused=$(jq -c 'select(.responseStatus.code == 403) | [.verb, .requestURI]' <<<"$own")
is "what it was refused" "$refused" ""
is "whom it was" "$(jq -c '.impersonatedUser // empty | [.username, .groups]' <<<"$own" | sort -u)" \
  "[\"$(login client)\",[\"lab:admins\",\"system:authenticated\"]]"
