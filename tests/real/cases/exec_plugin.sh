# Credential plugins of a kubeconfig. kubectl is the reference: with the same plugin it runs as often, is told the same,
# and what it answers is used for the same. A certificate from a plugin is a user to the real kube-apiserver.
# personas: boot
kubectl create namespace "$NS" >/dev/null
make_secret mine key=value
token=$(sed 's/^Authorization: Bearer //' "$LAB/admin.header")
v1=client.authentication.k8s.io/v1

# The plugin writes down what it is told and answers with the file of this name, or fails like it says.
cat >"$CASE/plugin" <<'PLUGIN'
#!/bin/sh
echo "$KUBERNETES_EXEC_INFO" | jq -cS . >>"$RUNS"
[ ! -e "$ANSWER.code" ] || exit "$(cat "$ANSWER.code")"
cat "$ANSWER"
PLUGIN
chmod +x "$CASE/plugin"

# kubeconfig USER CLUSTER: JSON objects that are added to the bare ones.
kubeconfig() {
  jq -n --arg server "https://127.0.0.1:$KUBE_PORT" --arg ca "$LAB/pki/apiserver.crt" --argjson user "$1" --argjson cluster "$2" '
    {apiVersion: "v1", kind: "Config", "current-context": "x",
     clusters: [{name: "c", cluster: ({server: $server, "certificate-authority": $ca} + $cluster)}],
     users: [{name: "u", user: $user}], contexts: [{name: "x", context: {cluster: "c", user: "u"}}]}' >"$CASE/kubeconfig"
}

# exec VERSION FIELDS: a user with the plugin, relative to the kubeconfig.
plugin() { jq -nc --arg version "$1" --argjson fields "$2" '{exec: ({apiVersion: $version, command: "./plugin"} + $fields)}'; }

# both NAME [COMMAND...]: one GET by each, the command in front. What they said is in NAME.kubectl.log and NAME.tailpod.log.
both() {
  local name=$1
  shift
  export ANSWER=$CASE/$name.answer
  RUNS=$CASE/$name.kubectl.runs "$@" kubectl --kubeconfig "$CASE/kubeconfig" get --raw "/api/v1/namespaces/$NS/secrets/mine" \
    </dev/null >"$CASE/$name.kubectl.log" 2>&1 && theirs=0 || theirs=$?
  RUNS=$CASE/$name.tailpod.runs "$@" "$TAILPOD" secret inspect --kubeconfig "$CASE/kubeconfig" --secret "$NS/mine" \
    </dev/null >"$CASE/$name.tailpod.log" 2>&1 && ours=0 || ours=$?
  touch "$CASE/$name.kubectl.runs" "$CASE/$name.tailpod.runs"
  is "$name: runs and what they were told" "$(cat "$CASE/$name.tailpod.runs")" "$(cat "$CASE/$name.kubectl.runs")"
  count=$(wc -l <"$CASE/$name.kubectl.runs")
}

answer() { jq -nc --arg version "$2" --argjson status "$3" '{kind: "ExecCredential", apiVersion: $version, status: $status}' >"$CASE/$1.answer"; }
with_token=$(jq -nc --arg token "$token" '{token: $token}')

# ---- what the plugin is told ------------------------------------------------------------------

kubeconfig "$(plugin $v1 '{"interactiveMode": "Never"}')" '{}'
answer bare $v1 "$with_token"
both bare
is "bare: exit codes and runs" "$theirs $ours $count" "0 0 1"

extension='[{"name": "client.authentication.k8s.io/exec", "extension": {"audience": "a", "deep": {"n": [1, 2.5, null, true]}}}]'
kubeconfig "$(plugin $v1 '{"interactiveMode": "Never", "provideClusterInfo": true}')" \
  "$(jq -nc --argjson extensions "$extension" '{"tls-server-name": "kubernetes.default.svc", "disable-compression": true, $extensions}')"
answer told $v1 "$with_token"
both told
is "told: exit codes and runs" "$theirs $ours $count" "0 0 1"
is "told: server name" "$(jq -r '.spec.cluster["tls-server-name"]' "$CASE/told.tailpod.runs")" kubernetes.default.svc

# No extension, and a cluster that trusts anybody.
jq '.clusters[0].cluster |= (del(.extensions, ."certificate-authority") | ."insecure-skip-tls-verify" = true)' \
  "$CASE/kubeconfig" >"$CASE/kubeconfig.new"
mv "$CASE/kubeconfig.new" "$CASE/kubeconfig"
answer insecure $v1 "$with_token"
both insecure
is "insecure: exit codes and runs" "$theirs $ours $count" "0 0 1"

kubeconfig "$(plugin ${v1}beta1 '{}')" '{}'
answer beta ${v1}beta1 "$with_token"
both beta
is "beta: exit codes and runs" "$theirs $ours $count" "0 0 1"

# ---- what is made of its answer ---------------------------------------------------------------

# refused NAME TEXT: both say it.
refused() {
  grep -qF -- "$2" "$CASE/$1.kubectl.log" || fail "$1: kubectl does not say \`$2\`: $(cat "$CASE/$1.kubectl.log")"
  grep -qF -- "$2" "$CASE/$1.tailpod.log" || fail "$1: tailpod does not say \`$2\`: $(cat "$CASE/$1.tailpod.log")"
  is "$1: exit codes" "$theirs $ours" "1 1"
}

kubeconfig "$(plugin $v1 '{"interactiveMode": "Never"}')" '{}'
answer empty $v1 '{}'
both empty
refused empty "getting credentials: exec plugin didn't return a token or cert/key pair"
answer version ${v1}beta1 "$with_token"
both version
refused version "exec plugin is configured to use API version $v1, plugin returned version ${v1}beta1"
answer half $v1 '{"clientCertificateData": "x"}'
both half
refused half "exec plugin returned only certificate or key, not both"
answer fails $v1 "$with_token"
echo 3 >"$CASE/fails.answer.code"
both fails
refused fails "plugin failed with exit code 3"
answer always $v1 "$with_token"
kubeconfig "$(plugin $v1 '{"interactiveMode": "Always"}')" '{}'
both always
refused always "exec plugin cannot support interactive mode: standard input is not a terminal"
is "always: runs" "$count" 0

# A token that is not accepted: the plugin is asked once more, and 401 stays 401.
kubeconfig "$(plugin $v1 '{"interactiveMode": "Never"}')" '{}'
answer stale $v1 '{"token": "nobody"}'
both stale
is "stale: exit codes and runs" "$theirs $ours $count" "1 1 2"

# What is there already is used, and the plugin left alone.
kubeconfig "$(plugin $v1 '{"interactiveMode": "Never"}' | jq -c --arg token "$token" '. + {$token}')" '{}'
answer static $v1 '{"token": "nobody"}'
both static
is "static: exit codes and runs" "$theirs $ours $count" "0 0 0"

# ---- a certificate ----------------------------------------------------------------------------

# certificate NAME USER
certificate() {
  client_certificate "$1" "$2" system:masters
  answer "$1" $v1 "$(jq -nc --rawfile chain "$CASE/$1.crt" --rawfile key "$CASE/$1.key" \
    '{clientCertificateData: $chain, clientKeyData: $key}')"
}

kubeconfig "$(plugin $v1 '{"interactiveMode": "Never"}')" '{}'
certificate pair "$NS-jane"
both pair
is "pair: exit codes and runs" "$theirs $ours $count" "0 0 1"
seen() { [ "$(jq -r --arg user "$NS-jane" 'select(.user.username == $user) | .userAgent' "$LAB/audit.log" | grep -c "$1")" -ge 1 ]; }
await 5 "jane by kubectl" seen '^kubectl/'
await 5 "jane by tailpod" seen '^tailpod/'
