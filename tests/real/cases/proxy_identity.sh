# Who the API server is told it is: a user, then a tagged node, whatever the client says of itself.
# personas: k8s-proxy proxy proxy-serve proxy-tun
. "$HERE/proxy.sh"
lab_of lab:admins lab:people lab:admins
ann=$(login client)
whoami() {
  http /apis/authentication.k8s.io/v1/selfsubjectreviews -H 'Content-Type: application/json' \
    --data '{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}' "$@" |
    jq -c '.status.userInfo | [.username, .groups, .extra, .uid]'
}
is_whoami() { [ "$(whoami)" = "$1" ]; }
as_ann='["'$ann'",["lab:admins","lab:people","system:authenticated"],null,null]'
is "a user" "$(whoami)" "$as_ann"
# What a client says of itself is nothing.
for header in "Impersonate-User: root" "impersonate-GROUP: system:masters" "IMPERSONATE-USER: root" "Impersonate-Uid: 0" \
  "Impersonate-Extra-Scopes: all" "Authorization: Bearer $(cat "$CASE/proxy/serviceaccount/token")" "X-Remote-User: root" \
  "X-Forwarded-For: 100.64.0.1" "Connection: Impersonate-User, Impersonate-Group, Authorization" "Impersonate_User: root"; do
  is "with ${header%%:*}" "$(whoami -H "$header")" "$as_ann"
done
# Not even for what the proxy asks for itself.
secrets=/api/v1/namespaces/$NS/secrets
http "$secrets" -A a-client -o /dev/null
http /api/v1/secrets -A a-client -o /dev/null
is "who asked for Secrets" "$(audit 'select(.userAgent == "a-client") | [.impersonatedUser.username, .responseStatus.code]' | xargs)" \
  "[$ann,200] [$ann,200]"
# A tagged node is its name; it has the groups that it is given, or else its tags.
tags client tag:ci tag:robots
name=$(node_fqdn client)
grants
await 5 "the tags" is_whoami '["'"${name%.}"'",["tag:ci","tag:robots","system:authenticated"],null,null]'
grants "$(groups lab:people)"
await 6 "the group instead of the tags" is_whoami '["'"${name%.}"'",["lab:people","system:authenticated"],null,null]'
tags client
await 6 "the user again" is_whoami '["'"$ann"'",["lab:people","system:authenticated"],null,null]'
# The API server's own record agrees: only these four, and nothing as the proxy itself.
is "identities on record" "$(audit 'select(.impersonatedUser) | .impersonatedUser | [.username, .groups]' | sort -u | wc -l)" 4
never_as_itself
# Which would be noticed: the same with the account of the proxy.
kubectl --token "$(cat "$CASE/proxy/serviceaccount/token")" get --raw "$secrets" >/dev/null
is "what was noticed" "$(as_itself | grep -o "$secrets.*kubectl/")" "$secrets kubectl/"
