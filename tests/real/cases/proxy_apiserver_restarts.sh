# The API server is killed and comes back: an error that says so meanwhile, then service as before.
# personas: k8s-proxy proxy
. "$HERE/proxy.sh"
lab_of lab:admins
status() { http "/api/v1/namespaces/$NS/configmaps" -o "$CASE/body" -w '%{http_code}'; }
status_is() { [ "$(status)" = "$1" ]; }
is "before" "$(status)" 200
apiserver_kill
await 5 "an error" status_is 502
if ! original; then
  is "kind of answer" "$(jq -r .kind "$CASE/body")" Status
fi
running proxy || fail "it ended with the API server"
apiserver_start
await 10 "service again" status_is 200
for _ in 1 2 3 4 5; do is "afterwards" "$(status)" 200; done
never_as_itself
