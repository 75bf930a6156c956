# The same repair by hand, as a CI job could do it: a start that fails on a dead key, a request that waits in the Pod,
# somebody who answers with kubectl, and a new node of the old name.
# personas: boot
# takes: 30
service_account node
make_secret node foreign=kept
dead=$(dead_key)
env=("${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node TS_HOSTNAME="$NS-node")
start node "${env[@]}" TS_AUTHKEY="$dead"
exits node 10 65
secret_has node _machinekey || fail "nothing is left of the first start"

# authkey ARGUMENTS...: in the Pod, with the rights of the Pod. What it says is searched for keys like any log.
authkey() {
  env -i PATH="$PATH" "${in_cluster[@]}" TS_KUBE_SECRET=node \
    unshare --mount --propagation private "$HERE/in-pod" "$CASE/node" "$TAILPOD" authkey "$@" 2>>"$CASE/authkey.log" |
    tee -a "$CASE/authkey-results.log"
}

# The operator: sees the request, answers with a key in the Secret.
operator() {
  await 30 "the request" secret_is node reissue_authkey "$dead"
  kubectl patch secret node -n "$NS" --type merge -p "{\"stringData\":{\"authkey\":\"$new\"}}" >/dev/null
}

new=$(auth_key once)
operator &
events=$(printf '%s\n' "$dead" | authkey request --wait --timeout 60s --json | jq -r .event | xargs)
wait $!
is events "${events// polling/}" "requested watching newKey"
is "the request once more" "$(printf '%s\n' "$dead" | authkey request --json | jq -r .event)" alreadyRequested

is "the patch" "$(authkey clear --dry-run | jq -r '.data | [.[]] | unique | tojson')" '[null]'
is cleared "$(authkey clear --yes --json | jq -r .event)" cleared
for key in reissue_authkey device_id _machinekey _current-profile _profiles; do
  ! secret_has node "$key" || fail "$key is still in the Secret"
done
is foreign "$(secret node foreign)" kept
is authkey "$(secret node authkey)" "$new"
is "clearing once more" "$(authkey clear --yes --json | jq -r .event)" nothingToClear

start node "${env[@]}"
ready node
is_named node "$NS-node" || fail "it is called $(node_fqdn node)"
await 5 "the device keys" device_is_published node
stop node
