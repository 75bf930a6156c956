# shellcheck shell=bash
# What a case about who orders is written with, beside lib/certs.sh: three nodes that all may write certificates, and
# replicas of `tailpod certs run` beside them of which one may order. Groups of replicas share the nodes; each has its own
# Lease and its own domain.

lease_duration=3s # unless a case says otherwise

# domain GROUP
domain() { echo "$1.lab.ts.net"; }

# writers_start GROUP...: the nodes pg-0, pg-1, pg-2, and the places for the certificates of these groups.
writers_start() {
  local ordinal
  cert_domains "${@/%/.lab.ts.net}"
  for ordinal in 0 1 2; do
    service_account "pg-$ordinal"
  done
  # The operator's rights to the Secrets, for all at once, and what certs.md asks for Leases and Events.
  kubectl apply -n "$NS" -f - >/dev/null <<RIGHTS
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: certificates, namespace: $NS}
rules:
- {apiGroups: [""], resources: [secrets], verbs: [get, list, watch, patch, update]}
- {apiGroups: [""], resources: [events], verbs: [create, patch, get]}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, create, update]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: certificates, namespace: $NS}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: certificates}
subjects:
- {kind: ServiceAccount, name: pg-0, namespace: $NS}
- {kind: ServiceAccount, name: pg-1, namespace: $NS}
- {kind: ServiceAccount, name: pg-2, namespace: $NS}
RIGHTS
  jq -n --arg ns "$NS" '{apiVersion: "v1", kind: "List", items: [$ARGS.positional[] | (. + ".lab.ts.net") as $domain | {
    apiVersion: "v1", kind: "Secret", type: "kubernetes.io/tls", stringData: {"tls.crt": "", "tls.key": ""},
    metadata: {name: $domain, namespace: $ns, labels: {"tailscale.com/managed": "true", "tailscale.com/secret-type": "certs",
      "tailscale.com/proxy-group": ., "tailscale.com/domain": $domain}}}]}' --args "$@" |
    kubectl create -f - >/dev/null 2>"$CASE/complaint" || fail "$(cat "$CASE/complaint")"
  for ordinal in 0 1 2; do
    replica "pg-$ordinal" rw
  done
}

# candidate GROUP ORDINAL [VARIABLE=value...]: one replica of the group, as Pod GROUP-ORDINAL beside the node of its ordinal.
candidate() {
  local group=$1 ordinal=$2 name=$1-$2
  shift 2
  mkdir -p "$CASE/$name"
  ln -sfn "$CASE/pg-$ordinal/serviceaccount" "$CASE/$name/serviceaccount"
  subject=("$TAILPOD" certs run --forever --domain "$(domain "$group")" --socket "$CASE/pg-$ordinal/tailscaled.sock"
    --proxy-group "$group" --lease-duration "$lease_duration")
  start "$name" "${in_cluster[@]}" KUBERNETES_SERVICE_PORT="$KUBE_PORT" TAILPOD_CERT_WRITER=lease \
    POD_NAME="$name" POD_UID="uid-$name" "$@"
}
candidates() {
  local ordinal
  for ordinal in 0 1 2; do
    candidate "$1" "$ordinal"
  done
}

kube() {
  curl -sS --max-time 10 --cacert "$LAB/pki/apiserver.crt" -H @"$LAB/admin.header" "https://127.0.0.1:$KUBE_PORT$1"
}
# holder GROUP: the Pod that has the Lease; nothing when nobody does.
holder() {
  kube "/apis/coordination.k8s.io/v1/namespaces/$NS/leases/tailpod-certs-$1" | jq -r '.spec.holderIdentity // "" | split("_")[0] // ""'
}
is_held() { [ -n "$(holder "$1")" ]; }
# taken GROUP POD: by another than this.
taken() {
  local now
  now=$(holder "$1")
  [ -n "$now" ] && [ "$now" != "$2" ]
}

# has_certificate GROUP: in its Secret.
has_certificate() { [ -n "$(secret_serial "$(domain "$1")")" ]; }

# history PREFIX: what lib/lease-history says of these groups.
history() { "$HERE/lease-history" "$LAB/audit.log" "$NS" "$1"; }
