# shellcheck shell=bash
# The servers that all cases share, on loopback: control with its relay, etcd, kube-apiserver.
# Sourced by `run` and by the benchmarks; needs BIN. Every server dies with the shell that sourced
# this, even if that shell is killed (setpriv --pdeathsig).

LAB_LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# lab_start: starts everything and exports what lib/case.sh needs.
lab_start() {
  LAB=$(mktemp -d "${TMPDIR:-/tmp}/tailpod-real.XXXXXX")
  export LAB BIN
  # The pinned kubectl, not one that happens to be on the machine.
  export PATH=$BIN:$PATH
  mkdir "$LAB/home" "$LAB/bin" "$LAB/cases"
  trap lab_stop EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  lab_control
  lab_etcd
  lab_apiserver
}

lab_stop() {
  local pids
  [ -z "$lab_case" ] || { kill -TERM "$lab_case" && wait "$lab_case"; } 2>/dev/null || true
  touch "$LAB/kube-apiserver.hold"
  pids=$(cat "$LAB"/*.pid 2>/dev/null) || true
  # shellcheck disable=SC2086 # one word for each process
  kill -KILL $pids 2>/dev/null || true
  if [ -n "${KEEP-}" ]; then echo "kept: $LAB" >&2; else rm -rf "$LAB"; fi
}

# lab_case SECONDS FILE [NICE]: runs one file with what lib/case.sh gives it. In the background, so that a
# signal to this shell is not kept waiting for its end.
lab_case=
lab_case() {
  local status=0
  nice -n "${3:-0}" timeout --kill-after 10 "$1" bash "$LAB_LIB/case.sh" "$2" &
  lab_case=$!
  wait "$lab_case" || status=$?
  lab_case=
  return "$status"
}

# lab_daemon NAME COMMAND...: stdout to NAME.out, stderr to NAME.log, pids in NAME*.pid.
lab_daemon() {
  setpriv --pdeathsig KILL "$LAB_LIB/daemon" "$@" &
  echo $! >"$LAB/$1-keeper.pid"
  disown
}

# lab_lost: names a server that has ended on its own, with its last words.
lab_lost() {
  local name
  for name in control etcd kube-apiserver; do
    kill -0 "$(cat "$LAB/$name-keeper.pid")" 2>/dev/null && continue
    echo "lab: $name ended on its own"
    tail -n 40 "$LAB/$name.log"
    return 0
  done
  return 1
}

# lab_wait NAME COMMAND...: until the command succeeds, 30 s at most.
lab_wait() {
  local name=$1 deadline=$((SECONDS + 30))
  shift
  until "$@" >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      echo "lab: $name is not ready after 30 s" >&2
      tail -n 20 "$LAB/$name.log" >&2 || true
      exit 1
    fi
    sleep 0.05
  done
}

# A port that nobody listens on, below the range from which the kernel hands out its own. None is given twice: who asked
# for it may not have opened it yet.
lab_port() {
  local port
  mkdir -p "$LAB/ports"
  while :; do
    port=$((20000 + RANDOM % 12000))
    (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null && continue
    mkdir "$LAB/ports/$port" 2>/dev/null && { echo "$port"; return; }
  done
}

lab_control() {
  lab_daemon control "$BIN/control"
  lab_wait control test -s "$LAB/control.out"
  CONTROL=$(jq -r .control "$LAB/control.out")
  CONTROL_ADMIN=$(jq -r .admin "$LAB/control.out")
  export CONTROL CONTROL_ADMIN
}

lab_etcd() {
  local peer
  ETCD=http://127.0.0.1:$(lab_port)
  peer=http://127.0.0.1:$(lab_port)
  lab_daemon etcd "$BIN/etcd" --data-dir "$LAB/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls "$ETCD" --advertise-client-urls "$ETCD" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer"
  lab_wait etcd curl -fsS "$ETCD/health"
}

# The API server is restarted: a case that kills it gets it back (apiserver_kill, _start).
lab_apiserver() {
  KUBE_PORT=$(lab_port)
  local admin_token
  admin_token=$(openssl rand -hex 16)
  (
    umask 077
    openssl genrsa -out "$LAB/sa.key" 2048 2>/dev/null
    # Whoever it signs for is a user, by the name in the certificate.
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=lab-clients -days 2 \
      -keyout "$LAB/client-ca.key" -out "$LAB/client-ca.crt" 2>/dev/null
    echo "$admin_token,admin,admin,system:masters" >"$LAB/tokens.csv"
    echo "Authorization: Bearer $admin_token" >"$LAB/admin.header"
  )
  # Bodies too: what was written, by whom and in which order is what the cases ask about.
  cat >"$LAB/audit.yaml" <<'EOF'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Request
  resources: [{group: "", resources: [secrets]}, {group: coordination.k8s.io, resources: [leases]}]
# Sessions in a Pod, whoever asks: with which verb says over which protocol. Pods, even if nobody in particular asks.
- level: Metadata
  resources: [{group: "", resources: [pods, pods/exec, pods/attach, pods/portforward]}]
# Of whatever else a Pod or a person asks: that it was asked, as whom, and what the answer was.
- level: Metadata
  userGroups: ["system:serviceaccounts", "lab:people"]
- level: None
EOF
  touch "$LAB/kube-apiserver.restart"
  lab_daemon kube-apiserver "$BIN/kube-apiserver" --etcd-servers "$ETCD" --cert-dir "$LAB/pki" \
    --secure-port "$KUBE_PORT" --bind-address 127.0.0.1 --advertise-address 127.0.0.1 \
    --service-account-issuer https://lab --service-account-key-file "$LAB/sa.key" \
    --service-account-signing-key-file "$LAB/sa.key" --token-auth-file "$LAB/tokens.csv" \
    --client-ca-file "$LAB/client-ca.crt" \
    --authorization-mode RBAC,Node --service-cluster-ip-range 10.96.0.0/24 --allow-privileged \
    --disable-admission-plugins ServiceAccount --audit-policy-file "$LAB/audit.yaml" \
    --audit-log-path "$LAB/audit.log"
  export KUBE_PORT

  # A certificate of its own making, which is also the root to trust.
  lab_wait kube-apiserver test -s "$LAB/pki/apiserver.crt"
  KUBECONFIG=$LAB/kubeconfig
  export KUBECONFIG
  (
    umask 077
    cat >"$KUBECONFIG" <<EOF
apiVersion: v1
kind: Config
current-context: lab
clusters: [{name: lab, cluster: {server: "https://127.0.0.1:$KUBE_PORT", certificate-authority: "$LAB/pki/apiserver.crt"}}]
users: [{name: admin, user: {token: "$admin_token"}}]
contexts: [{name: lab, context: {cluster: lab, user: admin}}]
EOF
  )
  lab_wait kube-apiserver apiserver_ready
}

apiserver_ready() {
  [ "$(curl -sS --max-time 2 --cacert "$LAB/pki/apiserver.crt" -H @"$LAB/admin.header" \
    "https://127.0.0.1:$KUBE_PORT/readyz")" = ok ]
}
