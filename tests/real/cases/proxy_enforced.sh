# Recording is enforced and there is no recorder: nothing gets through, and the answer says why.
# personas: k8s-proxy proxy
. "$HERE/proxy.sh"
lab_of lab:admins
pod_start
for over in "" spdy; do $over k exec web -c main -- true; done
grants '{"impersonate":{"groups":["lab:admins"]},"enforceRecorder":true}'
status_is() { [ "$(http "/api/v1/namespaces/$NS/pods" -o "$CASE/body" -w '%{http_code}')" = "$1" ]; }
await 6 "the refusal" status_is 403
grep -q 'must be recorded, but no recorders are available' "$CASE/body" || fail "no reason: $(cat "$CASE/body")"
after=$(audit 'select(.impersonatedUser)' | wc -l)
for over in "" spdy; do # WebSocket unless it says SPDY
  if $over k exec web -c main -- touch "$POD/touched" >"$CASE/exec.out" 2>&1; then fail "exec $over is let through"; fi
  grep -q 'must be recorded' "$CASE/exec.out" || fail "kubectl $over does not say why: $(cat "$CASE/exec.out")"
done
# kubectl asks for other things first, and has its answer. So does who begins with the session.
session="/api/v1/namespaces/$NS/pods/web/exec?container=main&command=touch&command=$POD/touched"
for request in "GET websocket" "POST SPDY/3.1"; do
  is "the answer to $request" "$(http "$session" --http1.1 -X "${request% *}" -H "Connection: Upgrade" -H "Upgrade: ${request#* }" \
    -o "$CASE/body" -w '%{http_code}')" 403
  grep -q 'session must be recorded, but no recorders are available' "$CASE/body" || fail "$request: no reason: $(cat "$CASE/body")"
done
[ ! -e "$POD/touched" ] || fail "the command has run"
is "requests that reached the API server" "$(audit 'select(.impersonatedUser)' | wc -l)" "$after"
