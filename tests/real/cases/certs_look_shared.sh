# Certificates that replicas share, seen from outside with an administrator's kubeconfig and in a Pod with the Pod's own
# rights: what is there, what lacks, and what two servers have. No look costs an order.
# personas: certs
. "$HERE/proxy.sh"
. "$HERE/acme.sh"
. "$HERE/certs.sh"
acme_start
shop=$NS-shop.lab.ts.net
bare=$NS-bare.lab.ts.net
cert_domains "$shop" "$bare"
service_account writer get,update,patch create,list
replica writer rw
tls_secret "$shop" writer
ask writer "$shop"
answered writer 200
serial=$(secret_serial "$shop")
socket=$CASE/writer/tailscaled.sock

# outside ARGUMENT...: as the administrator.
outside() {
  code=0
  "$TAILPOD" certs "$@" -n "$NS" --kubeconfig "$KUBECONFIG" --socket "$socket" >"$CASE/said" 2>"$CASE/warned" || code=$?
}
# inside ARGUMENT...: in a Pod of the group.
inside() {
  code=0
  env -i PATH="$BIN:$PATH" "${in_cluster[@]}" TS_SOCKET="$socket" TS_KUBE_SECRET=writer TS_EXPERIMENTAL_CERT_SHARE=true \
    POD_NAME="$NS-0" unshare --mount --propagation private "$HERE/in-pod" "$CASE/writer" "$TAILPOD" certs "$@" \
    >"$CASE/said" 2>"$CASE/warned" || code=$?
}
of() { jq -r --arg domain "$1" ".certificates[] | select(.domain == \$domain) | $2" "$CASE/said"; }

outside list --json --proxy-group "$NS"
ends 0
is "the shared one" "$(of "$shop" '"\(.source) \(.status) \(.keyMatches) \(.allowed)"')" "secret ok true true"
is "its serial number" "$(of "$shop" '.serial | ascii_upcase')" "$serial"
is "the other one" "$(of "$bare" '"\(.source) \(.status)"')" "none missing"
outside list --json --proxy-group "$NS-other"
is "in another group" "$(of "$shop" .status)" missing
outside show "$shop" --pem
ends 0 "-----BEGIN CERTIFICATE-----"
! grep -q PRIVATE "$CASE/said" || fail "it shows the key"

# The Pod may list, and the group's Roles let it fill the Secret of one name only.
inside list --json
ends 0
is "in the Pod" "$(of "$shop" '"\(.source) \(.status)"')" "secret ok"
jq -n --arg shop "$shop:443" --arg bare "$bare:443" \
  '{Services: {"svc:shop": {Web: {($shop): {}}}, "svc:bare": {Web: {($bare): {}}}}}' >"$CASE/serve.json"
inside check --serve-config "$CASE/serve.json"
ends 3 "Secret \`$bare\` does not exist: what is issued for it could not be stored"
grep -q "the Role does not allow get secrets \`$bare\`, patch secrets \`$bare\`" "$CASE/said" || fail "$(cat "$CASE/said")"
grep -q "certificates are shared, and \`$NS-0\` issues them" "$CASE/said" || fail "$(cat "$CASE/said")"
# What it says to paste is what lacks.
sed -n "/^failure  TP-CERTS-005/,/EOF$/p" "$CASE/said" | sed -n "/apiVersion/,/^ *EOF/p" | sed 's/^           //; /^EOF/d' |
  kubectl apply -n "$NS" -f - >/dev/null 2>"$CASE/complaint" || fail "$(cat "$CASE/complaint")"
is "its type" "$(kubectl get secret "$bare" -n "$NS" -o jsonpath='{.type}')" kubernetes.io/tls
jq 'del(.Services["svc:bare"])' "$CASE/serve.json" >"$CASE/one.json"
inside check --serve-config "$CASE/one.json"
ends 0 "all 1 TLS Secrets are there"

# Two servers: one has what is kept, the other one something else.
secret "$shop" tls.crt >"$CASE/kept.crt"
secret "$shop" tls.key >"$CASE/kept.key"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -subj "/CN=$shop" -addext "subjectAltName=DNS:$shop" \
  -keyout "$CASE/other.key" -out "$CASE/other.crt" 2>/dev/null
port=$(lab_port)
server=()
for replica in 1:kept 2:other; do
  openssl s_server -accept "127.0.0.${replica%%:*}:$port" -cert "$CASE/${replica#*:}.crt" -key "$CASE/${replica#*:}.key" \
    -quiet >/dev/null 2>&1 </dev/null &
  server+=($!)
done
outside verify "$shop" --service shop
ends 1 "the Service has no endpoints"
serves_kept() { outside verify "$shop" --address "127.0.0.1:$port" --proxy-group "$NS" && [ "$code" = 0 ]; }
await 5 "the first server" serves_kept
outside verify "$shop" --address "127.0.0.1:$port" --address "127.0.0.2:$port" --proxy-group "$NS" --json
ends 3
is "the servers" "$(jq -r '[.domains[0].replicas[].outcome] | join(" ")' "$CASE/said")" "same other"
is "what ought to be served" "$(jq -r '.domains[0].expectedSerial | ascii_upcase' "$CASE/said")" "$serial"
kill "${server[@]}"
is "orders" "$(orders "$shop") $(orders "$bare") of $(issued)" "1 0 of 1"
