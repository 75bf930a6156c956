# A state Secret that lost its current profile, looked at and mended in the Pod, with the rights of the Pod: the next
# start is the same device, without a key.
# personas: boot
service_account node
make_secret node foreign=kept
env=("${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node TS_HOSTNAME="$NS-node" TS_AUTH_ONCE=true POD_UID=uid-1
  TAILPOD_CAPVER=100)
start node "${env[@]}" TS_AUTHKEY="$(auth_key once)"
ready node
await 5 "the device keys" device_is_published node
id=$(node_id node)

# tool ARGUMENTS...: in the Pod. What it says is searched for keys like any log.
tool() {
  env -i PATH="$BIN:$PATH" TS_SOCKET="$CASE/node/tailscaled.sock" "${in_cluster[@]}" TS_KUBE_SECRET=node \
    unshare --mount --propagation private "$HERE/in-pod" "$CASE/node" "$TAILPOD" secret "$@" 2>>"$CASE/secret.log" |
    tee -a "$CASE/secret-results.log"
}
found() { tool inspect --json | jq -r '[.findings[].code] | join(" ")'; }

is "findings of a node that is well" "$(found)" ""
seen=$(tool inspect --json)
is "device id" "$(jq -r .device.id <<<"$seen")" "$id"
is "node of the profile" "$(jq -r '.identity.profiles[0].nodeId' <<<"$seen")" "$id"
is control "$(jq -r '.identity.profiles[0].controlUrl' <<<"$seen")" "$CONTROL"
is "profile, listed and stored" "$(jq -c '.identity.profiles | map([.current, .listed, .stored])' <<<"$seen")" '[[true,true,true]]'
is "writer of device_id" "$(jq -r '.keys[] | select(.name == "device_id").writer.manager' <<<"$seen")" tailscale-container
is "keys without a writer" "$(jq -r '[.keys[] | select(.writer == null).name] | join(" ")' <<<"$seen")" ""
[ "$(jq -r '.identity.profiles[0].keyExpiry' <<<"$seen")" != null ] || fail "the running daemon says when its key expires"
stop node

profile=$(secret node _current-profile)
kubectl patch secret node -n "$NS" --type merge -p '{"data":{"_current-profile":null}}' >/dev/null
is "findings without a current profile" "$(found)" TP-SECRET-001
tool repair --yes --save "$CASE/before.json" --json | jq -e '.applied and (.findings == [])' >/dev/null || fail "not repaired"
secret_is node _current-profile "$profile" || fail "the profile is not the current one again"
is "mode of the copy" "$(stat -c %a "$CASE/before.json")" 600
kubectl create --dry-run=server -n "$NS" -f <(jq 'del(.metadata.resourceVersion, .metadata.uid) | .metadata.name = "copy"' "$CASE/before.json") >/dev/null ||
  fail "kubectl does not take the copy"
is "difference to the copy" "$(tool diff "$CASE/before.json" node --json | jq -r '[.differences[] | .change + " " + .key] | join(",")')" "added _current-profile"

start node "${env[@]}"
ready node
is id "$(node_id node)" "$id"
is foreign "$(secret node foreign)" kept
stop node
