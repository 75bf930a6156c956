# shellcheck shell=bash
# What a case is written with. `run` calls `case.sh FILE` with the servers up and
#   LAB BIN CONTROL CONTROL_ADMIN KUBECONFIG KUBE_PORT   from lib/lab.sh
#   PERSONA     containerboot or boot (`tailpod boot`)
#   SUBJECT     tailpod or original
#   CASE        the directory of this case: logs, state, sockets
#   NS          the namespace of this case, which is also the prefix of its hostnames
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
declare -A pid=() log=()
runs=0
ready_line='Startup complete, waiting for shutdown signal'

# ---- words -----------------------------------------------------------------------------------

fail() {
  echo "$*" >&2
  exit 1
}

boot() { [ "$PERSONA" = boot ]; }
original() { [ "$SUBJECT" = original ]; }

# code N: the exit code where `tailpod boot` says N and the contract of containerboot says 1.
code() { if boot; then echo "$1"; else echo 1; fi; }

# is WHAT GOT WANT
is() { [ "$2" = "$3" ] || fail "$1 is \`$2\`, want \`$3\`"; }

# await SECONDS WHAT COMMAND...: polls the command; no wait in a case is without bound. What it last
# complained about is shown, not what it said on the way. What does not come soon is asked for less often, or cases that
# wait would take the processor from those that do not.
await() {
  local begun=${EPOCHREALTIME/./} what=$2
  local end=$((begun + $1 * 1000000))
  shift 2
  until "$@" 2>"$CASE/complaint"; do
    if [ "${EPOCHREALTIME/./}" -ge "$end" ]; then
      tail -n 1 "$CASE/complaint" >&2
      fail "gave up waiting: $what"
    fi
    if [ $((${EPOCHREALTIME/./} - begun)) -lt 2000000 ]; then sleep 0.05; else sleep 0.25; fi
  done
}

# ---- the process under test ------------------------------------------------------------------

if boot; then subject=("$TAILPOD" boot); else subject=("$LAB/bin/containerboot"); fi

# start NAME [VARIABLE=value...]: runs the subject as Pod NAME. Its environment is these and what
# makes tailscaled usable here: a free port, and no log server to look for.
start() {
  local name=$1 dir=$CASE/$1
  shift
  mkdir -p "$dir"
  runs=$((runs + 1))
  log[$name]=$CASE/$name.$runs.log
  [ -e "${log[$name]}" ] || : >"${log[$name]}" # there before anybody looks
  # A session of its own: whatever it leaves behind can be found, and ended.
  setsid env -i PATH="$CASE/bin:$BIN:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME="$dir" \
    TS_SOCKET="$dir/tailscaled.sock" \
    TS_TAILSCALED_EXTRA_ARGS="--port=0 --no-logs-no-support" "$@" \
    unshare --mount --propagation private "$HERE/in-pod" "$dir" ${INIT:+"${INIT[@]}"} "${subject[@]}" \
    >"${log[$name]}" 2>&1 </dev/null &
  pid[$name]=$!
}

# What a Pod that logs in through `tailscale up` adds: start node "${up[@]}" TS_AUTHKEY=...
up=(TS_EXTRA_ARGS="--login-server=$CONTROL")

# What the kubelet adds. The address is in the environment because no cluster DNS is here.
in_cluster=(KUBERNETES_SERVICE_HOST=127.0.0.1 KUBERNETES_SERVICE_PORT_HTTPS="$KUBE_PORT"
  TS_KUBERNETES_READ_API_SERVER_ADDRESS_FROM_ENV=true)

running() {
  local state
  { read -r _ _ state _ <"/proc/${pid[$1]}/stat"; } 2>/dev/null && [ "$state" != Z ]
}
gone() { ! running "$1"; }

# said NAME TEXT: the log so far, as plain text.
said() { grep -qF -- "$2" "${log[$1]}"; }

# await_said NAME TEXT [SECONDS]: fails at once when the process ends without saying it.
await_said() {
  await "${3:-30}" "$1 to say: $2" said_or_gone "$1" "$2"
  said "$1" "$2" || fail "$1 ended without saying: $2"
}
said_or_gone() { said "$1" "$2" || gone "$1"; }

ready() { await_said "$1" "$ready_line" "${2:-30}"; }

# exits NAME CODE [SECONDS]: ends by itself, with that code, and leaves nothing behind.
exits() {
  local name=$1 got=0 left
  await "${3:-30}" "$name to exit" gone "$name"
  wait "${pid[$name]}" || got=$?
  is "exit code of $name" "$got" "$2"
  # The original does not wait for tailscaled on every path; tailpod has to.
  if original; then await 5 "$name's children to end" no_session "$name"; fi
  if ! no_session "$name"; then
    left=$(living "$name")
    [ -z "$left" ] || fail "$name left behind: $left"
    await 5 "the end of what $name has killed" no_session "$name"
  fi
  unset "pid[$name]"
}
# living NAME: what is left of it that nobody has killed: no SIGKILL is pending there, and it is not ending (PF_EXITING).
living() {
  local member flags
  for member in $(ps -o pid= -s "${pid[$1]}"); do
    flags=$(sed 's/.*) //' "/proc/$member/stat" 2>/dev/null | cut -d ' ' -f 7) || continue
    [ $((flags & 4)) != 0 ] || is_killed "$member" || ps -o args= -p "$member" || true
  done
}
is_killed() { grep -qE '^(Sig|Shd)Pnd:.*[13579bdf]..$' "/proc/$1/status" 2>/dev/null; }
# What has ended and only waits for PID 1 of this machine to notice does not count.
no_session() { ! ps -o state= -s "${pid[$1]}" | grep -qv Z; }

# stop NAME: what the kubelet does, within the grace period of a Pod.
stop() {
  running "$1" || fail "$1 ended before it was stopped"
  kill -TERM "${pid[$1]}"
  exits "$1" 0 30
}

# child NAME COMMAND: pid of a process of this name that Pod NAME started.
child() { ps -o pid=,comm= -s "${pid[$1]}" | awk -v c="$2" '$2 == c { print $1; exit }'; }

another_child() {
  local now
  now=$(child "$1" "$2")
  [ -n "$now" ] && [ "$now" != "$3" ]
}

# ---- tailscaled and control ------------------------------------------------------------------

localapi() { curl -sS --max-time 10 --unix-socket "$CASE/$1/tailscaled.sock" "http://local-tailscaled.sock/localapi/v0/$2"; }

# node NAME FILTER: a jq filter over what tailscaled says of itself.
node() { localapi "$1" 'status?peers=false' | jq -r "$2"; }
node_id() { node "$1" .Self.ID; }
node_ips() { node "$1" '.TailscaleIPs | tojson'; }
node_fqdn() { node "$1" .Self.DNSName; }

is_running() { [ "$(node "$1" .BackendState 2>/dev/null)" = Running ]; }
not_running() { ! is_running "$1"; }
is_named() { [ "$(node_fqdn "$1")" = "$2.lab.ts.net." ]; }

# control METHOD PATH
control() { curl -fsS --max-time 90 -X "$1" "$CONTROL_ADMIN$2"; }

# auth_key [QUERY]: a key that control accepts, or what the query says (control/admin.go).
auth_key() {
  local key
  key=tskey-auth-$NS$RANDOM-$(openssl rand -hex 8)
  echo "$key" >>"$CASE/keys"
  control PUT "/keys/$key${1:+?$1}"
  echo "$key"
}

# dead_key: one that control has never seen.
dead_key() {
  local key
  key=tskey-auth-dead$NS$RANDOM-$(openssl rand -hex 8)
  echo "$key" >>"$CASE/keys"
  echo "$key"
}

# config NAME [JSON MEMBERS]: writes the config that the operator mounts, the way the kubelet does:
# all files change at once, when the ..data link is replaced.
config() {
  local dir=$CASE/$1-config version
  version=..$(date +%s%N)
  mkdir -p "$dir/$version"
  jq -n --arg url "$CONTROL" --arg host "$NS-$1" "{Version: \"alpha0\", ServerURL: \$url, Hostname: \$host, acceptDNS: false} + {${2-}}" \
    >"$dir/$version/cap-95.hujson"
  ln -sfn "$version" "$dir/..data_tmp"
  mv -T "$dir/..data_tmp" "$dir/..data"
  [ -e "$dir/cap-95.hujson" ] || ln -s ..data/cap-95.hujson "$dir/cap-95.hujson"
}

# ---- the cluster -----------------------------------------------------------------------------

# service_account NAME [VERBS ON THE SECRET] [VERBS ON SECRETS]: an account for Pod NAME with real
# RBAC for the Secret of that name, and the directory that the Pod sees. Defaults: what the
# documentation of Tailscale asks for.
service_account() {
  local name=$1 named=${2-get,update,patch} any=${3-create} dir=$CASE/$1/serviceaccount
  kubectl get namespace "$NS" >/dev/null 2>&1 || kubectl create namespace "$NS" >/dev/null
  kubectl apply -f - >/dev/null <<EOF
apiVersion: v1
kind: ServiceAccount
metadata: {name: $name, namespace: $NS}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: $name, namespace: $NS}
rules:
- {apiGroups: [""], resources: [secrets], resourceNames: [$name], verbs: [$named]}
- {apiGroups: [""], resources: [secrets], verbs: [$any]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: $name, namespace: $NS}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: $name}
subjects: [{kind: ServiceAccount, name: $name, namespace: $NS}]
EOF
  mkdir -p "$dir"
  printf %s "$NS" >"$dir/namespace"
  cp "$LAB/pki/apiserver.crt" "$dir/ca.crt"
  service_token "$name"
}

# service_token NAME: a new token, as the kubelet would rotate it.
service_token() {
  local dir=$CASE/$1/serviceaccount
  (umask 077 && kubectl create token "$1" -n "$NS" >"$dir/token.new")
  cat "$dir/token.new" >>"$CASE/keys"
  mv "$dir/token.new" "$dir/token"
}

# client_certificate NAME USER GROUP: NAME.key and NAME.crt, with which the API server takes one for that user.
client_certificate() {
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$CASE/$1.key" -subj "/O=$3/CN=$2" \
    -out "$CASE/$1.csr" 2>/dev/null
  # Of version 1, as OpenSSL makes them unless it is told otherwise.
  openssl x509 -req -in "$CASE/$1.csr" -CA "$LAB/client-ca.crt" -CAkey "$LAB/client-ca.key" -CAcreateserial -days 1 \
    -out "$CASE/$1.crt" 2>/dev/null
}

# secret NAME [KEY]: the names of the keys, or one decoded value (empty when it is not there).
secret() {
  curl -sS --max-time 10 --cacert "$LAB/pki/apiserver.crt" -H @"$LAB/admin.header" \
    "https://127.0.0.1:$KUBE_PORT/api/v1/namespaces/$NS/secrets/$1" |
    if [ $# -gt 1 ]; then
      jq -r --arg key "$2" '.data[$key] // empty | @base64d'
    else
      jq -r '.data // {} | keys[]'
    fi
}
secret_is() { [ "$(secret "$1" "$2")" = "$3" ]; }
secret_has() { [ -n "$(secret "$1" "$2")" ]; }

# make_secret NAME KEY=value...: what an administrator made before the Pod started.
make_secret() {
  local name=$1
  shift
  kubectl create secret generic "$name" -n "$NS" "${@/#/--from-literal=}" >/dev/null
}

# recorded ACCOUNT: what the API server has on record of this account, and not of those of other cases, which is a lot.
recorded() {
  { grep -F "\"system:serviceaccount:$NS:$1\"" "$LAB/audit.log" || true; } |
    jq -c --arg user "system:serviceaccount:$NS:$1" 'select(.user.username == $user)'
}

# requests NAME VERB: how many requests of this kind for Secrets came from the account of Pod NAME.
requests() { asked "$1" ".verb == \"$2\" and .objectRef.resource == \"secrets\""; }

# asked ACCOUNT FILTER: how many requests of this account match the jq filter, of whatever kind they are.
asked() { recorded "$1" | jq -s "[.[] | select($2)] | length"; }

# device_is_published NAME: the three keys that the operator and its users read.
device_is_published() {
  secret_is "$1" device_id "$(node_id "$1")" &&
    secret_is "$1" device_fqdn "$(node_fqdn "$1")" &&
    secret_is "$1" device_ips "$(node_ips "$1")"
}

# apiserver_kill, apiserver_start: an outage. apiserver_pause, _resume: one where it hangs instead.
apiserver_kill() {
  touch "$LAB/kube-apiserver.hold"
  kill -KILL "$(cat "$LAB/kube-apiserver.pid")"
}
apiserver_start() {
  rm -f "$LAB/kube-apiserver.hold"
  await 30 "the API server" apiserver_ready
}
apiserver_pause() { kill -STOP "$(cat "$LAB/kube-apiserver.pid")"; }
apiserver_resume() { kill -CONT "$(cat "$LAB/kube-apiserver.pid")"; }

# ---- the case itself -------------------------------------------------------------------------

# Nothing of a case outlives it, whatever happened.
clean_up() {
  local status=$? name
  for name in "${!pid[@]}"; do
    # shellcheck disable=SC2046 # one word for each process
    kill -KILL "${pid[$name]}" $(ps -o pid= -s "${pid[$name]}") || true
    wait "${pid[$name]}" || true
  done 2>/dev/null
  apiserver_resume 2>/dev/null || true
  rm -f "$LAB/kube-apiserver.hold"
  control POST "/reject?status=0" || true
  exit "$status"
}
trap clean_up EXIT
trap 'exit 143' TERM

# shellcheck source=/dev/null
. "$HERE/lab.sh"
mkdir -p "$CASE/bin"
: >"$CASE/keys"
# shellcheck source=/dev/null
. "$1"

# In every case: no key and no token in any log. tailscaled's lines are in there too.
if grep -lsF -f "$CASE/keys" "$CASE"/*.log >&2; then
  fail "a secret reached a log"
fi
