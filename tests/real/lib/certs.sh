# shellcheck shell=bash
# What a case about certificates is written with, beside lib/proxy.sh and lib/acme.sh. The nodes are those of proxy.sh.

# pod NAME [VARIABLE=value...]: the subject of the persona, as in lib/case.sh; the nodes are started in between.
of_the_persona=("${subject[@]}")
pod() {
  subject=("${of_the_persona[@]}")
  start "$@"
}

# cert_domains NAME...: the tailnet lets its nodes have certificates for these too.
cert_domains() { control PUT "/cert-domains?$(printf 'name=%s&' "$@")"; }

# ask NODE DOMAIN [QUERY] [SECONDS]: what its tailscaled answers, in the files of that name: the status in
# $CASE/NODE.status (000 when none came), the body in .body, the headers in .headers.
ask() {
  rm -f "$CASE/$1.body" "$CASE/$1.headers"
  touch "$CASE/$1.body" "$CASE/$1.headers"
  curl -s --max-time "${4:-20}" --unix-socket "$CASE/$1/tailscaled.sock" -o "$CASE/$1.body" -D "$CASE/$1.headers" \
    -w '%{http_code}' "http://local-tailscaled.sock/localapi/v0/cert/$2${3:+?$3}" >"$CASE/$1.status" || true
}
# answered NODE STATUS [TEXT]: to the last question.
answered() {
  is "answer of $1 ($(head -c 300 "$CASE/$1.body"))" "$(cat "$CASE/$1.status")" "$2"
  [ -z "${3-}" ] || grep -qF -- "$3" "$CASE/$1.body" || fail "$1 answers: $(cat "$CASE/$1.body")"
}
# header NODE NAME: of the last answer.
header() { sed -n "s/^$2: *\([^\r]*\)\r*$/\1/Ip" "$CASE/$1.headers"; }

# serial: of the first certificate on stdin, empty if there is none.
serial() { openssl x509 -noout -serial 2>/dev/null | sed 's/^serial=//' || true; }
serial_in() { serial <"$1"; }
# secret_serial NAME: of the certificate in this TLS Secret.
secret_serial() { secret "$1" tls.crt | serial; }

# served NODE HOST [PORT]: the serial that its peers see, through the SOCKS5 proxy of the node at $client_port.
served() {
  local to
  to=$(node "$1" '.TailscaleIPs[0]')
  curl -s --max-time 5 --cacert "$CASE/ca.crt" --proxy "socks5://127.0.0.1:$client_port" --resolve "$2:${3:-443}:$to" \
    -o /dev/null -w '%{certs}' "https://$2:${3:-443}/" | serial
}
serves() { [ "$(served "$1" "$2" "${4-}")" = "$3" ]; }

# tls_secret DOMAIN ACCOUNT [GROUP]: the place for its certificate and the rights to it, which the operator makes.
tls_secret() {
  # It warns that there is no certificate in it.
  kubectl apply -n "$NS" -f - >/dev/null 2>"$CASE/complaint" <<SECRET || fail "$(cat "$CASE/complaint")"
apiVersion: v1
kind: Secret
metadata:
  name: $1
  labels: {tailscale.com/managed: "true", tailscale.com/secret-type: certs, tailscale.com/proxy-group: "${3:-$NS}", tailscale.com/domain: "$1"}
type: kubernetes.io/tls
stringData: {tls.crt: "", tls.key: ""}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: $1, namespace: $NS}
rules:
- {apiGroups: [""], resources: [secrets], resourceNames: ["$1"], verbs: [get, list, patch, update]}
SECRET
  tls_rights "$1" "$2"
}
# tls_rights DOMAIN ACCOUNT: for one more replica.
tls_rights() {
  kubectl apply -n "$NS" -f - >/dev/null <<BINDING
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: $1-$2}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: $1}
subjects: [{kind: ServiceAccount, name: $2, namespace: $NS}]
BINDING
}

# replica NAME MODE [FLAG...]: a node whose state is in a Secret, and whose certificates are in those of tls_secret. MODE
# is rw or ro.
replica() {
  local name=$1 mode=$2
  shift 2
  node_env=("${in_cluster[@]}" KUBERNETES_SERVICE_PORT="$KUBE_PORT" TS_CERT_SHARE_MODE="$mode" POD_NAME="$NS-$name")
  node_start "$name" --state="kube:$name" "$@"
  node_env=()
}

# viewer_start: the second node of the tailnet, from which HTTPS is looked at.
viewer_start() {
  client_port=$(lab_port)
  node_start viewer --socks5-server="127.0.0.1:$client_port"
}

# serve_config FILE DOMAIN: a page on HTTPS, as TS_SERVE_CONFIG wants it.
serve_config() {
  jq -n --arg host "$2:443" '{TCP: {"443": {HTTPS: true}}, Web: {($host): {Handlers: {"/": {Text: "hello"}}}}}' >"$1.new"
  mv "$1.new" "$1"
}

# certs ARGUMENT...: `tailpod certs`, for the node at $socket; its exit code is in $code, what it says in $CASE/said and,
# besides, in $CASE/warned.
certs() {
  code=0
  env -u KUBECONFIG "$TAILPOD" certs "$@" --socket "$socket" >"$CASE/said" 2>"$CASE/warned" || code=$?
}
# ends CODE [TEXT]: what the command before came to.
ends() {
  is "exit code ($(tail -qn 3 "$CASE/said" "$CASE/warned"))" "$code" "$1"
  [ -z "${2-}" ] || grep -qF -- "$2" "$CASE/said" "$CASE/warned" || fail "it says: $(cat "$CASE/said" "$CASE/warned")"
}
