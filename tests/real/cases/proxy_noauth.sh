# noauth: a path, not an identity. The client's own token counts, and nothing is added to it.
# personas: k8s-proxy proxy
. "$HERE/proxy.sh"
grants "$(groups lab:admins)"
proxy_start noauth
client_start
admins
status() { http "$@" -o "$CASE/body" -w '%{http_code}'; }
answers() { [ "$(status /version)" != 000 ]; }
await 15 "the proxy to answer" answers
is "without a token" "$(status "/api/v1/namespaces/$NS/configmaps")" 403
grep -q 'system:anonymous' "$CASE/body" || fail "not as nobody: $(cat "$CASE/body")"
is "with the admin's" "$(status "/api/v1/namespaces/$NS/configmaps" -H @"$LAB/admin.header")" 200
is "with a wrong one" "$(status "/api/v1/namespaces/$NS/configmaps" -H 'Authorization: Bearer wrong')" 401
# What it asks to be is the API server's to allow: the admin may.
is "as another" "$(status "/api/v1/namespaces/$NS/configmaps" -H @"$LAB/admin.header" -H 'Impersonate-User: somebody')" 403
grep -q '"somebody' "$CASE/body" || grep -q 'somebody' "$CASE/body" || fail "not as somebody: $(cat "$CASE/body")"
is "requests as somebody's proxy" "$(audit 'select(.impersonatedUser)' | wc -l)" 0
never_as_itself
