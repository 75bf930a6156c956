# shellcheck shell=bash
# The API server proxy beside the Go k8s-proxy (a PROXY v2 header in, a TLS backend) and beside nginx (TLS on both
# sides). A real tailscaled answers who the client is; its CPU time counts as ours, as that of the node inside k8s-proxy
# counts as its own. Client, proxy and backend share the machine's cores.
. "$HERE/proxy.sh"
certificate_name=localhost
open_files=$(ulimit -Hn)
ulimit -n "$open_files"
load=$BIN/load
# Not all of them, to look at one thing: PROXY_SUBJECTS="original nginx".
read -ra subjects <<<"${PROXY_SUBJECTS:-original ours ours-tls nginx}"
wants() { [[ " ${subjects[*]} " == *" $1 "* ]]; }

# result MEASURE SUBJECT MODE VALUE
result() { echo "proxy-$1 $2 $3 $4" >>"$RESULTS"; }

# measured SUBJECT MEASURE JSON KEY...: one result for each key.
measured() {
  local who=$1 measure=$2 json=$3 key
  shift 3
  echo "  $who $measure: $json" >&2
  for key in "$@"; do result "$measure-$key" "$who" - "$(jq ".$key" <<<"$json")"; done
}

session() { ps -o pid= -s "${pid[$1]}" | tr -d ' ' | paste -sd ,; }
listens() { (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
sampled() { awk '$1 == "VmRSS:" { print $2 * 1024 }' "/proc/${pid[$1]}/status"; }

# ---- backends --------------------------------------------------------------------------------

certificate "$certificate_name" "$CASE/certs"
crt=$CASE/certs/$certificate_name.crt key=$CASE/certs/$certificate_name.key

# nginx_run NAME PORT SERVER [UPSTREAM]: one nginx with as many workers as there are cores.
nginx_run() {
  local name=$1 port=$2 server=$3
  mkdir -p "$CASE/$name/tmp"
  cat >"$CASE/$name.conf" <<EOF
daemon off; worker_processes auto; pid $CASE/$name/nginx.pid; error_log $CASE/$name.error.log; user root;
worker_rlimit_nofile $open_files;
events { worker_connections 12000; }
http {
  access_log off; keepalive_requests 100000000; keepalive_timeout 1h; sendfile on; tcp_nodelay on; open_file_cache max=10;
  client_body_temp_path $CASE/$name/tmp; proxy_temp_path $CASE/$name/tmp;
  ssl_certificate $crt; ssl_certificate_key $key; ssl_protocols TLSv1.2 TLSv1.3;
  ${4-}
  server { listen 127.0.0.1:$port ssl; $server }
}
EOF
  subject=(nginx -p "$CASE/$name" -c "$CASE/$name.conf")
  start "$name"
  await 10 "$name" listens "$port"
}

mkdir "$CASE/www"
head -c 1024 /dev/urandom | base64 -w 0 | head -c 1024 >"$CASE/www/1k"
head -c 1048576 /dev/urandom >"$CASE/www/1m"
backend_port=$(lab_port)
nginx_run backend "$backend_port" "root $CASE/www;"

subject=("$load" backend -cert "$crt" -key "$key")
start streams
await 5 "the backend for streams" grep -q '^{' "${log[streams]}"
streams_port=$(jq .port "${log[streams]}")
tell=http://127.0.0.1:$(jq .tell "${log[streams]}")/

# upstream NAME PORT: the kubeconfig of the proxies.
upstream() {
  cat >"$CASE/$1.kubeconfig" <<EOF
apiVersion: v1
kind: Config
current-context: bench
clusters: [{name: bench, cluster: {server: "https://127.0.0.1:$2", certificate-authority: "$CASE/ca.crt", tls-server-name: $certificate_name}}]
users: [{name: bench, user: {token: bench}}]
contexts: [{name: bench, context: {cluster: bench, user: bench}}]
EOF
}
upstream answers "$backend_port"
upstream streams "$streams_port"

# ---- the tailnet -----------------------------------------------------------------------------

grants "$(groups lab:people)"
node_start peer
node_start client
from=$(node client '.TailscaleIPs[0]')

# To the proxy with TLS of its own a client is who its address says; so this network has that address.
ip address add "$from/32" dev lo

# ---- the proxies -----------------------------------------------------------------------------

# The flags that reach each: PROXY header in plain text, or TLS from the client's address.
declare -A reach=()

# original_start UPSTREAM, ours_start UPSTREAM, ...: one of each, named NAME-UPSTREAM.
original_start() {
  jq -n --arg url "$CONTROL" --arg key "$(auth_key)" --arg state "$CASE/original-$1.state" \
    '{version: "v1alpha1", authKey: $key, serverURL: $url, hostname: "bench-original", logLevel: "info", state: $state,
      apiServerProxy: {enabled: false, mode: "auth"}}' >"$CASE/original-$1.json"
  subject=("$BIN/k8s-proxy")
  start "original-$1" TS_K8S_PROXY_CONFIG="$CASE/original-$1.json" KUBECONFIG="$CASE/$1.kubeconfig" TS_NO_LOGS_NO_SUPPORT=true
  await_said "original-$1" "is listening on"
  reach[original]="-addr 127.0.0.1:80 -from $from"
  knows original
}
tailpod_start() {
  local name=$1 kubeconfig=$2 port=$3
  shift 3
  subject=("$TAILPOD" proxy --listen "127.0.0.1:$port" --kubeconfig "$CASE/$kubeconfig.kubeconfig"
    --socket "$CASE/peer/tailscaled.sock" "$@")
  # One peer has all watches.
  start "$name-$kubeconfig" TAILPOD_PEER_CONNECTIONS=1000000
  await 10 "$name" listens "$port"
}
ours_start() {
  local port
  port=$(lab_port)
  tailpod_start ours "$1" "$port" --proxy-protocol
  reach[ours]="-addr 127.0.0.1:$port -from $from"
  knows ours
}
ours_tls_start() {
  local port
  port=$(lab_port)
  tailpod_start ours-tls "$1" "$port" --tls files --tls-cert "$crt" --tls-key "$key"
  reach[ours-tls]="-addr 127.0.0.1:$port -source $from -ca $CASE/ca.crt -name $certificate_name"
  knows ours-tls
}
nginx_start() {
  local port upstream_port=$backend_port
  port=$(lab_port)
  [ "$1" = answers ] || upstream_port=$streams_port
  nginx_run "nginx-$1" "$port" "location / { proxy_pass https://backend; proxy_http_version 1.1;
      proxy_set_header Connection \$or_upgrade; proxy_set_header Upgrade \$http_upgrade; proxy_set_header Host \$host;
      proxy_ssl_verify on; proxy_ssl_name $certificate_name;
      proxy_ssl_trusted_certificate $CASE/ca.crt; proxy_ssl_session_reuse on; }" \
    "map \$http_upgrade \$or_upgrade { default upgrade; '' ''; }
    upstream backend { server 127.0.0.1:$upstream_port; keepalive 512; keepalive_requests 100000000; }"
  reach[nginx]="-addr 127.0.0.1:$port -ca $CASE/ca.crt -name $certificate_name"
}
# knows WHO: until the first request is answered; the daemon may hear of its peer only now.
knows() {
  # shellcheck disable=SC2086 # one word for each flag
  await 15 "$1 to answer" "$load" requests ${reach[$1]} -path /1k -probe >/dev/null
}

reach[direct]="-addr 127.0.0.1:$backend_port -ca $CASE/ca.crt -name $certificate_name"
counted() {
  case $1 in
  original) session original-answers ;;
  ours*) echo "$(session "$1-answers"),$(session peer)" ;;
  nginx) session nginx-answers ;;
  direct) echo $$ ;;
  esac
}

for who in "${subjects[@]}"; do "${who/-/_}_start" answers; done
sleep "$SETTLE"
for who in "${subjects[@]}"; do
  result idle-memory "$who" - "$(sampled "$who-answers")"
done

# load_of WHO ARGUMENT...: requests to it.
load_of() {
  local who=$1
  shift
  # shellcheck disable=SC2086 # one word for each flag
  "$load" requests ${reach[$who]} -pids "$(counted "$who")" "$@"
}
for _ in $(seq "$PROXY_ROUNDS"); do
  for who in "${subjects[@]}"; do
    measured "$who" 1k "$(load_of "$who" -path /1k -connections 32 -for "${PROXY_SECONDS}s")" per_second cpu_us p50_us p99_us failed
  done
  for who in "${subjects[@]}"; do
    measured "$who" 1m "$(load_of "$who" -path /1m -connections 8 -for "${PROXY_SECONDS}s")" per_second cpu_us failed
  done
  for who in direct "${subjects[@]}"; do
    measured "$who" quiet "$(load_of "$who" -path /1k -connections 1 -pause 5ms -for 3s)" p50_us
  done
done
for name in "${subjects[@]}"; do
  # shellcheck disable=SC2046 # one word for each process
  kill -KILL $(ps -o pid= -s "${pid[$name-answers]}") 2>/dev/null || true
  wait "${pid[$name-answers]}" 2>/dev/null || true
  unset "pid[$name-answers]"
done

# ---- watches and streams ---------------------------------------------------------------------

many=$(((open_files - 400) / 2)) # two files each in the proxy; too few of them is a bar missed
[ "$many" -le 10000 ] || many=10000
counted() { if [ "$1" = direct ]; then echo $$; else session "$1-streams"; fi; }
watches_of() {
  local who=$1 measure=$2 count=$3
  # shellcheck disable=SC2086
  measured "$who" "$measure" "$("$load" watches ${reach[$who]} -path /api/v1/namespaces/bench/configmaps \
    -pids "$(counted "$who")" -count "$count" -tell "$tell" |
    jq -c --argjson want "$count" '. + {lost: ($want - .delivered), count: .open}')" kb_each lost count
}
# An upgrade that nobody would want recorded.
forwarded=/api/v1/namespaces/bench/pods/web/portforward
streams_of() {
  local who=$1
  # shellcheck disable=SC2086
  measured "$who" stream "$("$load" stream ${reach[$who]} -pids "$(counted "$who")" -path "$forwarded/down")" \
    mb_per_second cpu_us_per_mb
  [ "$who" = direct ] && return
  # shellcheck disable=SC2086
  measured "$who" echo "$("$load" echo ${reach[$who]} -path "$forwarded/echo" -count 200 | jq -c '. + {lost: (.streams - .whole)}')" lost seconds
}
reach[direct]="-addr 127.0.0.1:$streams_port -ca $CASE/ca.crt -name $certificate_name"
for who in original ours ours-tls nginx; do
  wants "$who" || continue
  "${who/-/_}_start" streams
  # In a process that has carried nothing: what streams leave behind would be used again, and not be counted.
  [ "$who" = nginx ] || watches_of "$who" watches-1000 1000
  # By turns: the machine is not as fast at one time as at another.
  for _ in 1 2 3; do
    streams_of direct
    streams_of "$who"
  done
done
# A process of its own: what 1,000 have left behind is none of theirs.
for who in ours ours-tls; do
  wants "$who" || continue
  kill -KILL "${pid[$who-streams]}"
  wait "${pid[$who-streams]}" 2>/dev/null || true
  unset "pid[$who-streams]"
  "${who/-/_}_start" streams
  watches_of "$who" watches-10000 "$many"
done
