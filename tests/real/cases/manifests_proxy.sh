# The manifests of the API server proxy, in both arrangements and both modes: accepted by the API server, with no more
# rights than they say, and applied a second time without harm to what the Pods have written.
# personas: boot
kubectl create namespace "$NS" >/dev/null
tls=8 serve=10
for variant in "$tls " "$((tls - 2)) --mode noauth" "$tls --groups readers,system:masters,tag:ci --replicas 3" \
  "$serve --listener serve --tailnet tail1234.ts.net" \
  "$((serve - 2)) --listener serve --tailnet tail1234.ts.net --mode noauth" \
  "$((serve + 4)) --listener serve --tailnet tail1234.ts.net --service svc:prod-api --replicas 3"; do
  # shellcheck disable=SC2086 # one word for each option
  "$TAILPOD" generate manifests proxy ${variant#* } --namespace "$NS" >"$CASE/manifests.yaml"
  for side in true false; do
    kubectl apply --dry-run=server --server-side=$side -f "$CASE/manifests.yaml" >"$CASE/applied" 2>&1 ||
      fail "\`${variant#* }\` is refused: $(cat "$CASE/applied")"
    # The certificate is empty until it is issued, as the operator makes it too.
    ! grep -i warning "$CASE/applied" | grep -v 'tls: failed to find any PEM data' || fail "\`${variant#* }\` is warned about"
    is "number of objects for \`${variant#* }\`" "$(grep -c 'server dry run' "$CASE/applied")" "${variant%% *}"
  done
done

apply() {
  "$TAILPOD" generate manifests proxy --listener serve --tailnet tail1234.ts.net --service svc:api --name proxy --replicas 2 \
    --groups readers,tag:ci --namespace "$NS" | kubectl apply --server-side -f -
}
apply >/dev/null
# can WANT VERB RESOURCE[/NAME] [NAMESPACE]: what RBAC says about the service account.
can() {
  is "may it $2 $3${4:+ in $4}" \
    "$(kubectl auth can-i "$2" "$3" -n "${4:-$NS}" --as "system:serviceaccount:$NS:proxy" 2>/dev/null || true)" "$1"
}
await 5 "RBAC to be in effect" can yes impersonate groups/readers
can yes impersonate groups/tag:ci
can yes impersonate users/ann@example.com
can no impersonate groups/system:masters
can no impersonate groups
can no impersonate serviceaccounts/default
can no impersonate uids/0
for verb in get list watch; do can yes $verb secrets/proxy-1-config; done
for verb in get update patch; do
  can yes $verb secrets/proxy-0
  can yes $verb secrets/api.tail1234.ts.net
done
can no update secrets/proxy-0-config
can no create secrets
can no list secrets
can no get secrets/another
can no get secrets/proxy-0 default
can no get pods

# What the Pods write between two times stays: the certificate, the state.
kubectl patch secret api.tail1234.ts.net -n "$NS" --type merge -p '{"stringData":{"tls.crt":"cert","tls.key":"key"}}' >/dev/null
kubectl patch secret proxy-0 -n "$NS" --type merge -p '{"stringData":{"_machinekey":"machine"}}' >/dev/null
apply >"$CASE/again" 2>&1 || true
is "state after another time" "$(secret proxy-0 _machinekey)" machine
is "certificate after another time" "$(secret api.tail1234.ts.net tls.crt)" cert

# The policy is JSON, whose grant is for the groups that the proxy may act as a member of.
is groups "$("$TAILPOD" generate manifests proxy --groups a,b --policy |
  jq -c '.grants[0].app["tailscale.com/cap/kubernetes"][0].impersonate.groups')" '["a","b"]'
