# One reading of a path: what we make of a request is what Kubernetes' own code makes of it, on 200,000 of them, and the
# API server really serves the odd spellings that we take for sessions.
# personas: proxy
# takes: 30

fixtures=$HERE/../../fixtures/proxy/requests.txt
count=200000

# The seed is new each time; a difference says which.
seed=${SEED:-$RANDOM$RANDOM}
{
  cat "$fixtures"
  "$BIN/requestinfo" -generate "$count" -seed "$seed"
} >"$CASE/requests"
"$BIN/requestinfo" <"$CASE/requests" >"$CASE/theirs"
"$TAILPOD" proxy classify --json <"$CASE/requests" >"$CASE/ours"
asked=$(wc -l <"$CASE/requests")
[ "$asked" -gt "$count" ] || fail "only $asked requests were made"
for answers in ours theirs; do
  is "answers of $answers" "$(wc -l <"$CASE/$answers")" "$asked"
done
jq -R . "$CASE/requests" | paste -d '\t' - "$CASE/ours" "$CASE/theirs" |
  awk -F '\t' '{print "{\"request\":" $1 ",\"ours\":" $2 ",\"theirs\":" $3 "}"}' >"$CASE/both"

# The comparison itself: it must find a verb, a kind and a refusal that are wrong.
grep -F '{"request":"GET /api/v1/namespaces/x",' "$CASE/both" >"$CASE/one"
for lie in '.ours.requestInfo.verb = "x"' '.ours.kind = "exec"' '.ours = {error: "no"}'; do
  found=$(jq "$lie" "$CASE/one" | jq -r -f "$HERE/same_request.jq" | wc -l)
  [ "$found" -gt 0 ] || fail "the comparison does not notice $lie"
done
jq -r -f "$HERE/same_request.jq" "$CASE/both" >"$CASE/differences"
[ ! -s "$CASE/differences" ] || fail "read differently, with seed $seed: $(head -n 3 "$CASE/differences")"

# Enough of each kind was among them, refusals and ambiguous paths too.
for kind in exec attach "node command" port-forward "ephemeral container" refused other; do
  found=$(jq -r '.kind // "refused"' "$CASE/ours" | grep -cFx "$kind") || true
  [ "$found" -ge 10 ] || fail "only $found requests were $kind"
done

# served PATH: how the API server answers for a Pod that does not exist. It names the Pod if the path leads to it.
served() {
  curl -sS --max-time 10 --path-as-is --cacert "$LAB/pki/apiserver.crt" -H @"$LAB/admin.header" -X POST \
    "https://127.0.0.1:$KUBE_PORT$1?command=x" | jq -r .message 2>/dev/null
}
pod=/api/v1/namespaces/default/pods
for path in "$pod/nobody/exec" "$pod/nobody/exec/" "$pod/nobody%2Fexec" "$pod/nobody/%65xec" "$pod%2fnobody/exec%2F" \
  "$pod/nobody/attach" "$pod/nobody/attach/"; do
  is "the answer to $path" "$(served "$path")" 'pods "nobody" not found'
  kind=$("$TAILPOD" proxy classify --json "POST $path" | jq -r .kind)
  case $kind in exec | attach) ;; *) fail "$path is $kind to us" ;; esac
done
for path in "$pod/nobody/%2e/exec" "$pod/nobody//exec" "$pod/nobody/exec/x" "/$pod/nobody/exec" "$pod/nobody/Exec"; do
  case $(served "$path") in 'pods "nobody" not found') fail "$path leads to the Pod" ;; esac
done
