# Recording is enforced and there is no recorder: nothing gets through, and the answer says why.
# personas: k8s-proxy proxy
. "$HERE/proxy.sh"
lab_of lab:admins
pod_start
before=$(audit 'select(.impersonatedUser)' | wc -l)
grants '{"impersonate":{"groups":["lab:admins"]},"enforceRecorder":true}'
status_is() { [ "$(http "/api/v1/namespaces/$NS/pods" -o "$CASE/body" -w '%{http_code}')" = "$1" ]; }
await 6 "the refusal" status_is 403
grep -q 'must be recorded, but no recorders are available' "$CASE/body" || fail "no reason: $(cat "$CASE/body")"
after=$(audit 'select(.impersonatedUser)' | wc -l)
if k exec web -c main -- touch "$POD/touched" >"$CASE/exec.out" 2>&1; then fail "exec is let through"; fi
if spdy k exec web -c main -- touch "$POD/touched" >>"$CASE/exec.out" 2>&1; then fail "exec over SPDY is let through"; fi
grep -q 'must be recorded' "$CASE/exec.out" || fail "kubectl does not say why: $(cat "$CASE/exec.out")"
[ ! -e "$POD/touched" ] || fail "the command has run"
is "requests that reached the API server" "$(audit 'select(.impersonatedUser)' | wc -l)" "$after"
[ "$after" -ge "$before" ]
