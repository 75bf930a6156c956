# The config in a Secret, as the operator gives it, with the rights that the operator gives: read at the start, followed
# by a watch, through bad content and an outage of the API server.
# personas: k8s-proxy
# original: no, bad content ends it (api-proxy.md 9.1)
. "$HERE/proxy.sh"
proxy_source=kube:$NS/proxy-config
put_config() {
  kubectl create secret generic proxy-config -n "$NS" --from-file=config.hujson="$1" --dry-run=client -o yaml |
    kubectl apply -f - >/dev/null
}
first_config() {
  put_config "$CASE/proxy.hujson"
  kubectl apply -f - >/dev/null <<EOF
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: config, namespace: $NS}
rules:
- {apiGroups: [""], resources: [secrets], resourceNames: [proxy-config], verbs: [get, patch, update]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: config, namespace: $NS}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: config}
subjects: [{kind: ServiceAccount, name: proxy, namespace: $NS}]
EOF
}
proxy_prepare=first_config
lab_of lab:admins
echo '{"version": "v1alpha1", "hostname": oops}' >"$CASE/bad.hujson"
put_config "$CASE/bad.hujson"
await_said proxy "line 1, column 37" 10
reaches || fail "bad content ended its service"
apiserver_kill
# shellcheck disable=SC2016 # expands in jq
proxy_config 'hostname: "\($host)-named"'
apiserver_start
put_config "$CASE/proxy.hujson"
await 30 "the new name" is_node proxy-named
await 10 "the proxy to answer" reaches
seen_as "$(login client)" lab:admins
