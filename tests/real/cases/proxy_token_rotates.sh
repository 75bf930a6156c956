# The proxy's account gets another token and the old one is refused: no client notices.
# personas: k8s-proxy proxy
# original: no, it reads the file again after up to a minute only, and requests fail until then
# takes: 20
. "$HERE/proxy.sh"
lab_of lab:admins
old=$(jq -Rn --rawfile token "$CASE/proxy/serviceaccount/token" \
  '{apiVersion: "authentication.k8s.io/v1", kind: "TokenReview", spec: {token: $token}}')
# The API server forgets the old one 10 s after it was last good, or at once when it was never asked.
kubectl delete serviceaccount proxy -n "$NS" >/dev/null
kubectl create serviceaccount proxy -n "$NS" >/dev/null
service_token proxy
refused() { [ "$(kubectl create -f - -o 'jsonpath={.status.authenticated}' <<<"$old")" != true ]; }
end=$((SECONDS + 15)) was_refused=
while [ "$SECONDS" -lt "$end" ]; do
  is "status" "$(http "/api/v1/namespaces/$NS/configmaps" -o /dev/null -w '%{http_code}')" 200
  ! refused || was_refused=yes
  sleep 0.2
done
is "the old token was refused meanwhile" "$was_refused" yes
seen_as "$(login client)" lab:admins
