# The proxy is a user by a client certificate, which a plugin gives it and then replaces: the watches and sessions that
# were opened with the old one end everywhere, and from then on the real kube-apiserver sees the new one only.
# personas: proxy
# takes: 15
. "$HERE/proxy.sh"
grants "$(groups lab:admins)"
admins
proxy_account
kubectl create clusterrolebinding "$NS-certificates" --clusterrole impersonate --user "$NS-old" --user "$NS-new" >/dev/null

# user NAME END: what the plugin answers to make the proxy that user, until then.
user() {
  client_certificate "$1" "$NS-$1" lab:people
  jq -n --rawfile chain "$CASE/$1.crt" --rawfile key "$CASE/$1.key" --arg ends "$2" \
    '{kind: "ExecCredential", apiVersion: "client.authentication.k8s.io/v1",
      status: {clientCertificateData: $chain, clientKeyData: $key, expirationTimestamp: $ends}}' >"$CASE/answer.new"
  mv "$CASE/answer.new" "$CASE/answer"
}
cat >"$CASE/plugin" <<PLUGIN
#!/bin/sh
echo run >>"$CASE/runs"
# Half of the time is left when it is asked again.
sed "s/SOON/\$(date -u -d '+24 seconds' +%Y-%m-%dT%H:%M:%SZ)/" "$CASE/answer"
PLUGIN
chmod +x "$CASE/plugin"
jq -n --arg server "https://127.0.0.1:$KUBE_PORT" --arg ca "$LAB/pki/apiserver.crt" '
  {apiVersion: "v1", kind: "Config", "current-context": "x",
   clusters: [{name: "c", cluster: {server: $server, "certificate-authority": $ca}}],
   users: [{name: "u", user: {exec: {apiVersion: "client.authentication.k8s.io/v1", command: "./plugin", interactiveMode: "Never"}}}],
   contexts: [{name: "x", context: {cluster: "c", user: "u"}}]}' >"$CASE/plugin.kubeconfig"

proxy_port=$(lab_port)
node_start peer
certificate "$NS-peer.lab.ts.net" "$CASE/peer-state/certs"
client_start
pod_start
user old SOON
subject=("$TAILPOD" proxy --listen "127.0.0.1:$proxy_port" --socket "$CASE/peer/tailscaled.sock" --kubeconfig "$CASE/plugin.kubeconfig")
start proxy
await_said proxy "API server proxy in auth mode is listening on"
await 15 "the proxy to answer" reaches

k create configmap before >/dev/null
KUBECONFIG=$CASE/client.kubeconfig KUBECACHEDIR=$CASE/kubecache setsid kubectl get configmaps --watch -o name >"$CASE/watched" 2>&1 &
pid[watch]=$!
KUBECONFIG=$CASE/client.kubeconfig KUBECACHEDIR=$CASE/kubecache setsid kubectl exec web -c main -- sleep 1000 >"$CASE/session" 2>&1 &
pid[session]=$!
sees() { grep -q '^configmap/before$' "$CASE/watched"; }
await 5 "the watch to have begun" sees
at_the_kubelet() { said kubelet "/exec/$NS/web/main"; }
await 5 "the session to have begun" at_the_kubelet
! has_ended exec 1 || fail "the session has ended already"

user new 2100-01-01T00:00:00Z
await_said proxy "the client certificate changed, closing its connections" 30
await 2 "the session's end at the kubelet" has_ended exec 1
await 2 "the watch's end at the client" gone watch
await 2 "the session's end at the client" gone session
k create configmap after >/dev/null
is "runs of the plugin" "$(wc -l <"$CASE/runs")" 2

# by NAME: the requests that came with that certificate, and when.
by() { jq -c --arg user "$NS-$1" 'select(.user.username == $user)' "$LAB/audit.log"; }
new_is_seen() { by new | grep -q configmaps; }
await 5 "the API server to have seen the new user" new_is_seen
last=$(by old | jq -r .requestReceivedTimestamp | sort | tail -n 1)
first=$(by new | jq -r .requestReceivedTimestamp | sort | head -n 1)
[[ $last < $first ]] || fail "the old certificate was used at $last, the new one at $first"
is "whom they were for" "$(by new | jq -r .impersonatedUser.username | sort -u)" "$(login client)"
