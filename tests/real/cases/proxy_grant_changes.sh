# A grant that changes while a connection is kept alive takes effect within 5 s, in both directions.
# personas: k8s-proxy proxy proxy-serve
. "$HERE/proxy.sh"
lab_of lab:admins
# One connection, a request each 100 ms: `curl` keeps it for the whole list.
for _ in $(seq 1 600); do printf 'url = "%s/api/v1/namespaces/%s/configmaps"\noutput = "/dev/null"\n' "$(proxy_url)" "$NS"; done >"$CASE/list"
curl -sS --max-time 60 --rate 10/s --cacert "$CASE/ca.crt" --proxy "http://127.0.0.1:$client_port" -K "$CASE/list" \
  --write-out '%{stderr}%{http_code} %{num_connects}\n' 2>"$CASE/answers" &
curl=$!
last_is() { [ "$(tail -n 1 "$CASE/answers" | cut -d ' ' -f 1)" = "$1" ]; }
await 5 "an answer" last_is 200
grants "$(groups lab:nobody)"
await 5 "the grant to be gone" last_is 403
grants "$(groups lab:admins)"
await 5 "the grant to be back" last_is 200
kill "$curl"
# It was one connection (through the HTTP proxy of the client's node).
is "connections" "$(awk '{ n += $2 } END { print n }' "$CASE/answers")" 1
is "answers" "$(cut -d " " -f 1 "$CASE/answers" | sort -u | paste -sd " ")" "200 403"
never_as_itself
