# shellcheck shell=bash
# What a case about the API server proxy is written with, beside lib/case.sh: two nodes of a tailnet, the proxy on one
# of them, the clients on the other, and a Pod of the cluster to run things in. PERSONA says how the proxy is reached:
#   k8s-proxy     the persona, with a tailscaled of its own: the Service's TLS ends there, a PROXY header says who it is
#   proxy-serve   `tailpod proxy --proxy-protocol` beside a tailscaled that does the same
#   proxy         `tailpod proxy` with the node's own certificate, beside a tailscaled in userspace mode
#   proxy-tun     the same, beside a tailscaled with a network device
#   direct        no proxy at all, to see that a case is true of the API server itself
# The original of the first is k8s-proxy, and of the others nothing.

grants_of_kubernetes='tailscale.com/cap/kubernetes'
service_domain=kube.lab.ts.net
acme_env=() # lib/acme.sh
node_env=() # what else a node finds in its environment
proxy_env=() # what else the proxy finds in its environment
soon_withdrawn=(TAILPOD_WITHDRAW_WAIT=1s) # where a stop is not what is shown: a Service goes on for 20 s otherwise
proxy_source= # where its config is, if not in $CASE/proxy.hujson
proxy_prepare= # a command to run before it is started for the first time

direct() { [ "$PERSONA" = direct ]; }

# ---- certificates ----------------------------------------------------------------------------

# authority: the issuer that the clients trust, and tailscaled.
authority() {
  [ -e "$CASE/ca.crt" ] && return
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=lab \
    -keyout "$CASE/ca.key" -out "$CASE/ca.crt" 2>/dev/null
}

# certificate DOMAIN DIR: as tailscaled keeps one that it has been issued.
certificate() {
  authority
  mkdir -p "$2"
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
    -keyout "$2/$1.key" -out "$CASE/request" 2>/dev/null
  openssl x509 -req -in "$CASE/request" -CA "$CASE/ca.crt" -CAkey "$CASE/ca.key" -days 60 \
    -extfile <(echo "subjectAltName=DNS:$1") -out "$2/$1.crt" 2>/dev/null
}

# ---- nodes -----------------------------------------------------------------------------------

# node_start NAME [FLAG...]: a tailscaled in userspace mode, logged in. Its state is in NAME-state. TUN=NAME gives it a
# network device of that name.
node_start() {
  local name=$1
  shift
  authority
  node_run "$name" "$@"
  "$BIN/tailscale" --socket="$CASE/$name/tailscaled.sock" up --login-server="$CONTROL" \
    --authkey="$(auth_key)" --hostname="$NS-$name" --accept-dns=false ${TUN:+--netfilter-mode=off} --timeout 30s
}

# node_run NAME [FLAG...]: the daemon alone; again, after it has ended.
node_run() {
  local name=$1
  shift
  subject=("$BIN/tailscaled" --tun="${TUN:-userspace-networking}" --port=0 --no-logs-no-support
    --statedir="$CASE/$name-state" --socket="$CASE/$name/tailscaled.sock" "$@")
  # Without an authority the answer is no, and at once: tailscaled orders one certificate at a time.
  start "$name" SSL_CERT_FILE="$CASE/ca.crt" TS_DEBUG_ACME_DIRECTORY_URL=https://127.0.0.1:9/dir "${acme_env[@]}" \
    "${node_env[@]}"
  await 10 "the socket of $name" test -S "$CASE/$name/tailscaled.sock"
}

# node_id_of NAME: what control calls the node of that hostname; for a node that has no socket of its own to ask.
node_id_of() { control GET /nodes | jq -r --arg host "$NS-$1" '.[] | select(.hostname == $host) | .id'; }

is_node() { [ -n "$(node_id_of "$1")" ]; }

# login NAME: the user whose node it is.
login() { node "$1" '.User[.Self.UserID | tostring].LoginName'; }

# tags NAME [TAG...]: what the administrator has made of the node.
tags() {
  local name=$1 query=
  shift
  [ $# = 0 ] || query=$(printf '&tag=%s' "$@")
  control POST "/nodes/$(node_id "$name")/tags?${query#&}"
}

# grants [RULE...]: the policy file gives every peer these capability values.
grants() {
  printf '%s\n' "$@" | jq -s --arg name "$grants_of_kubernetes" '{($name): .}' |
    curl -fsS --max-time 10 -X PUT --data-binary @- "$CONTROL_ADMIN/grants"
}
# groups NAME...: the rule that lets a peer act as these.
groups() { jq -nc '{impersonate: {groups: $ARGS.positional}}' --args "$@"; }

# ---- the proxy -------------------------------------------------------------------------------

# proxy_account: the proxy's own account. It may impersonate, and nothing else that a client could want.
proxy_account() {
  service_account proxy get,update,patch create,list,watch
  kubectl apply -f - >/dev/null <<EOF
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: impersonate}
rules:
- {apiGroups: [""], resources: [users, groups], verbs: [impersonate]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: $NS-proxy}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: impersonate}
subjects: [{kind: ServiceAccount, name: proxy, namespace: $NS}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: certificate, namespace: $NS}
rules:
- {apiGroups: [""], resources: [secrets], resourceNames: [$service_domain], verbs: [get, list, update, patch]}
- {apiGroups: [""], resources: [events], verbs: [create, patch, get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: certificate, namespace: $NS}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: certificate}
subjects: [{kind: ServiceAccount, name: proxy, namespace: $NS}]
EOF
}

# proxy_config [JSON MEMBERS]: the persona's, and the original's. IN_PLACE=1 writes into the file that is there, which is
# all that the original notices.
proxy_config() {
  jq -n --arg url "$CONTROL" --arg host "$NS-proxy" --arg key "$(cat "$CASE/proxy.authkey")" --arg mode "$proxy_mode" "
    {version: \"v1alpha1\", authKey: \$key, serverURL: \$url, hostname: \$host, state: \"kube:proxy\", logLevel: \"info\",
     apiServerProxy: {enabled: true, mode: \$mode, serviceName: \"svc:kube\"}, advertiseServices: [\"svc:kube\"]} + {${1-}}" \
    >"$CASE/proxy.hujson.new"
  if [ -n "${IN_PLACE-}" ]; then
    cat "$CASE/proxy.hujson.new" >"$CASE/proxy.hujson"
  else
    mv "$CASE/proxy.hujson.new" "$CASE/proxy.hujson"
  fi
}

# service_secret: the certificate of the Service; or, where one is ordered, the place for it, which the operator makes.
service_secret() {
  if [ ${#acme_env[@]} = 0 ]; then
    certificate "$service_domain" "$CASE/certs"
    kubectl create secret tls "$service_domain" -n "$NS" --cert "$CASE/certs/$service_domain.crt" \
      --key "$CASE/certs/$service_domain.key" >/dev/null
  else
    kubectl create -n "$NS" -f - >/dev/null <<EOF
apiVersion: v1
kind: Secret
metadata: {name: $service_domain}
type: kubernetes.io/tls
data: {tls.crt: "", tls.key: ""}
EOF
  fi
}

# proxy_start [auth|noauth] [JSON MEMBERS]: brings the proxy up as Pod `proxy`, with its node.
proxy_start() {
  proxy_mode=${1:-auth}
  proxy_account
  ! direct || return 0
  case $PERSONA in
  k8s-proxy)
    auth_key >"$CASE/proxy.authkey"
    proxy_config "${2-}"
    service_secret
    "${proxy_prepare:-true}"
    proxy_run
    await 30 "the node of the proxy" is_node proxy
    await_said proxy "API server proxy in $proxy_mode mode is listening on"
    control POST "/nodes/$(node_id_of proxy)/service"
    ;;
  proxy-serve)
    node_start peer
    [ ${#acme_env[@]} != 0 ] || certificate "$service_domain" "$CASE/peer-state/certs"
    proxy_port=$(lab_port)
    proxy_run
    await_said proxy "API server proxy in $proxy_mode mode is listening on"
    control POST "/nodes/$(node_id peer)/service"
    ;;
  proxy)
    node_start peer
    [ ${#acme_env[@]} != 0 ] || certificate "$NS-peer.lab.ts.net" "$CASE/peer-state/certs"
    proxy_port=$(lab_port)
    proxy_run
    await_said proxy "API server proxy in $proxy_mode mode is listening on"
    ;;
  proxy-tun)
    TUN=tailpod0 node_start peer
    [ ${#acme_env[@]} != 0 ] || certificate "$NS-peer.lab.ts.net" "$CASE/peer-state/certs"
    proxy_run
    await_said proxy "API server proxy in $proxy_mode mode is listening on"
    ;;
  esac
}

# proxy_run: the process alone; again, after it has ended.
proxy_run() {
  case $PERSONA in
  k8s-proxy)
    subject=("$LAB/bin/k8s-proxy")
    start proxy "${in_cluster[@]}" KUBERNETES_SERVICE_PORT="$KUBE_PORT" POD_NAME=proxy \
      TS_K8S_PROXY_CONFIG="${proxy_source:-$CASE/proxy.hujson}" TS_NO_LOGS_NO_SUPPORT=true SSL_CERT_FILE="$CASE/ca.crt" \
      TS_DEBUG_ACME_DIRECTORY_URL=https://127.0.0.1:9/dir "${acme_env[@]}" "${proxy_env[@]}"
    ;;
  proxy-serve)
    subject=("$TAILPOD" proxy --mode "$proxy_mode" --proxy-protocol --service svc:kube
      --listen "127.0.0.1:$proxy_port" --socket "$CASE/peer/tailscaled.sock")
    start proxy "${in_cluster[@]}" KUBERNETES_SERVICE_PORT="$KUBE_PORT" "${proxy_env[@]}"
    ;;
  proxy | proxy-tun)
    subject=("$TAILPOD" proxy --mode "$proxy_mode" ${proxy_port:+--listen "127.0.0.1:$proxy_port"}
      --socket "$CASE/peer/tailscaled.sock")
    start proxy "${in_cluster[@]}" KUBERNETES_SERVICE_PORT="$KUBE_PORT" "${proxy_env[@]}"
    ;;
  esac
}

# proxy_url: what a client puts into its kubeconfig.
proxy_url() {
  case $PERSONA in
  proxy*-serve) echo "https://$service_domain" ;;
  proxy*) echo "https://$NS-peer.lab.ts.net${proxy_port:+:$proxy_port}" ;;
  *) echo "https://$service_domain" ;;
  esac
}

# ---- the client's side -----------------------------------------------------------------------

# client_start [NAME]: a node whose tailnet is reached through a proxy of its own on loopback, and the kubeconfig for
# it. There are no credentials in that; kubectl insists on some, so it has what `tailscale configure kubeconfig` writes.
client_start() {
  local name=${1:-client}
  if direct; then
    cp "$KUBECONFIG" "$CASE/$name.kubeconfig"
    KUBECONFIG=$CASE/$name.kubeconfig kubectl config set-context lab --namespace "$NS" >/dev/null
    return
  fi
  client_port=$(lab_port)
  node_start "$name" --socks5-server="127.0.0.1:$client_port" --outbound-http-proxy-listen="127.0.0.1:$client_port"
  cat >"$CASE/$name.kubeconfig" <<EOF
apiVersion: v1
kind: Config
current-context: lab
clusters: [{name: lab, cluster: {server: "$(proxy_url)", certificate-authority: "$CASE/ca.crt", proxy-url: "http://127.0.0.1:$client_port"}}]
users: [{name: nobody, user: {token: unused}}]
contexts: [{name: lab, context: {cluster: lab, user: nobody, namespace: $NS}}]
EOF
}

# k ARGUMENT...: kubectl as the client. AS=NAME for another client.
k() {
  local name=${AS:-client}
  KUBECONFIG=$CASE/$name.kubeconfig KUBECACHEDIR=$CASE/kubecache kubectl "$@"
}
spdy() { KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false KUBECTL_PORT_FORWARD_WEBSOCKETS=false "$@"; }

# http PATH [CURL ARGUMENT...]: one request as the client, without kubectl.
http() {
  local path=$1
  shift
  curl -sS --max-time 20 --cacert "$CASE/ca.crt" --proxy "http://127.0.0.1:$client_port" "$@" "$(proxy_url)$path"
}

reaches() { [ "$(http /version -o /dev/null -w '%{http_code}')" = 200 ]; }

# lab_of GROUP...: everything up, and the client in these groups; `lab:admins` may do all.
lab_of() {
  grants "$(groups "$@")"
  proxy_start
  client_start
  admins
  direct || await 15 "the proxy to answer" reaches
}

# admins: what the group lab:admins may do.
admins() {
  kubectl apply -f - >/dev/null <<EOF
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: lab-admins}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "lab:admins"}]
EOF
}

# ---- a Pod -----------------------------------------------------------------------------------

# pod_start: Pod `web` with a container that has a terminal and one that has none, on a node of its own. Its processes
# are ours, in $POD; its log is $POD.log.
pod_start() {
  local port
  mkdir -p "$CASE/kubelet-dir"
  POD=$CASE/kubelet-dir/${NS}_web
  mkdir "$POD"
  : >"$POD.log"
  # shellcheck disable=SC2016 # expands there
  echo 'echo attached; while read -r line; do echo "heard $line"; done' >"$CASE/kubelet-dir/main.sh"
  subject=("$BIN/kubelet" "$CASE/kubelet-dir")
  start kubelet
  await 5 "the kubelet" grep -q '^{' "${log[kubelet]}"
  port=$(grep -m 1 '^{' "${log[kubelet]}" | jq .port)
  kubectl apply -f - >/dev/null <<EOF
apiVersion: v1
kind: Node
metadata: {name: $NS-machine}
EOF
  kubectl patch node "$NS-machine" --subresource=status --patch "$(jq -n "{status: {
    addresses: [{type: \"InternalIP\", address: \"127.0.0.1\"}],
    daemonEndpoints: {kubeletEndpoint: {Port: $port}},
    conditions: [{type: \"Ready\", status: \"True\", reason: \"Lab\", message: \"\",
      lastHeartbeatTime: now | todate, lastTransitionTime: now | todate}]}}")" >/dev/null
  kubectl apply -n "$NS" -f - >/dev/null <<EOF
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  nodeName: $NS-machine
  terminationGracePeriodSeconds: 0
  containers:
  - {name: main, image: lab, stdin: true}
  - {name: terminal, image: lab, stdin: true, tty: true}
EOF
  kubectl patch pod web -n "$NS" --subresource=status --patch "$(jq -n '
    def running: {ready: true, started: true, restartCount: 0, image: "lab", imageID: "lab", containerID: "lab://1",
      state: {running: {startedAt: (now | todate)}}};
    {status: {phase: "Running", conditions: [{type: "Ready", status: "True"}],
      containerStatuses: ["main", "terminal" | running + {name: .}]}}')" >/dev/null
}

# ended KIND: how many sessions of that kind have ended at the kubelet.
ended() { grep -c "^$1 ${NS}_web " "$CASE/kubelet-dir/ended" 2>/dev/null || true; }
has_ended() { [ "$(ended "$1")" -ge "$2" ]; }

# terminal ROWSxCOLUMNS STEPS COMMAND...: see lib/terminal.
terminal() { "$HERE/terminal" "$@"; }

# ---- what the API server saw -----------------------------------------------------------------

# audit FILTER: the requests that came from the account of the proxy, through a jq filter over each.
audit() { recorded proxy | jq -c "$1"; }

# seen_as USER GROUP...: every request of a client was made as this user with exactly these groups (and the one that
# everybody has), and no other request was made as the proxy than those that are its own affair.
seen_as() {
  local user=$1 want others
  shift
  ! direct || return 0
  want=$(jq -nc --arg user "$user" '{username: $user, groups: ($ARGS.positional + ["system:authenticated"])}' --args "$@")
  others=$(audit 'select(.impersonatedUser) | .impersonatedUser' | sort -u)
  is "impersonated users" "$others" "$want"
  never_as_itself
}
# as_itself: what was asked with the proxy's own identity, and was not its own affair: the Secrets and events of its
# namespace, and what it may do. Its own requests are told from a client's by who says to ask: tailpod, the original, or
# tailscaled, which calls itself what Go calls it.
as_itself() {
  audit 'select(.impersonatedUser | not)
    | select(((.userAgent // "") | test("^(tailpod|k8s-proxy)/|^Go-http-client/1[.]1$"))
        and ((.objectRef.namespace == env.NS and (.objectRef.resource | IN("secrets", "events")))
          or .objectRef.resource == "selfsubjectaccessreviews") | not)
    | [.verb, .requestURI, .userAgent] | join(" ")'
}
never_as_itself() {
  local own
  own=$(as_itself)
  [ -z "$own" ] || fail "made with the proxy's own identity: $own"
}

# sessions KIND: how the sessions of that kind in a Pod of this case began. To the API server a WebSocket is `get` and
# SPDY is `create`; a client whose WebSocket fails tries SPDY, and so there are more of that than it asked for.
sessions() {
  jq -r --arg kind "$1" 'select(.stage == "ResponseStarted" and .objectRef.namespace == env.NS and .objectRef.subresource == $kind)
    | "\(.verb) \(.responseStatus.code)"' "$LAB/audit.log" | sort | uniq -c | awk '{ print $1, $2, $3 }' | paste -sd ,
}

# clean: the tailnet's grants are shared by all cases.
grants
