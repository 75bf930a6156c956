# The proxy's account gets another token and the old one is refused: no client notices.
# personas: k8s-proxy proxy
# original: no, it reads the file again after up to a minute only, and requests fail until then
. "$HERE/proxy.sh"
lab_of lab:admins
(umask 077 && echo "Authorization: Bearer $(cat "$CASE/proxy/serviceaccount/token")" >"$CASE/old.header")
# The API server forgets the old one 10 s after it was last good, or at once when it was never asked.
kubectl delete serviceaccount proxy -n "$NS" >/dev/null
kubectl create serviceaccount proxy -n "$NS" >/dev/null
service_token proxy
refused() {
  [ 401 = "$(curl -sS --max-time 5 --cacert "$LAB/pki/apiserver.crt" -H @"$CASE/old.header" -o /dev/null -w '%{http_code}' \
    "https://127.0.0.1:$KUBE_PORT/version")" ]
}
end=$((SECONDS + 15)) was_refused=
while [ "$SECONDS" -lt "$end" ]; do
  is "status" "$(http "/api/v1/namespaces/$NS/configmaps" -o /dev/null -w '%{http_code}')" 200
  ! refused || was_refused=yes
  sleep 0.2
done
is "the old token was refused meanwhile" "$was_refused" yes
seen_as "$(login client)" lab:admins
