# `doctor` under six settings of RBAC: each refusal is found, and the Role it prints, applied with
# kubectl as it is, makes the finding go away.
# personas: boot

# doctor NAME LOG [ARGS...]: runs it as Pod NAME would; its exit code in $?.
doctor() {
  local name=$1 out=$2
  shift 2
  env -i PATH="$BIN:/usr/bin:/bin" TS_SOCKET="$CASE/$name/tailscaled.sock" "${in_cluster[@]}" TS_KUBE_SECRET="$name" \
    unshare --mount --propagation private "$HERE/in-pod" "$CASE/$name" \
    "$TAILPOD" doctor --json --only rbac "$@" >"$out" 2>"$out.log" </dev/null
}

# level FILE CODE
level() { jq -r --arg code "$2" '.findings[] | select(.code == $code) | .level' "$1"; }

mended() {
  doctor "$1" "$CASE/$1.json" && [ "$(level "$CASE/$1.json" "$2")" = ok ]
}

number=0
while read -r named any code want; do
  number=$((number + 1))
  name=node-$number
  service_account "$name" "$named" "$any"
  make_secret "$name" foreign=kept
  doctor "$name" "$CASE/$name.json" || true
  is "level of $code without it" "$(level "$CASE/$name.json" "$code")" "$want"
  # What is printed is a command: kubectl apply, with the Role and its binding.
  jq -r --arg code "$code" '.findings[] | select(.code == $code) | .remedy' "$CASE/$name.json" |
    bash >/dev/null || fail "the remedy for $code cannot be applied"
  await 10 "$code to be allowed" mended "$name" "$code"
done <<'CASES'
update,patch,list,watch create TP-RBAC-001 failure
get,patch,list,watch create TP-RBAC-002 failure
get,update,list,watch create TP-RBAC-003 warning
get,update,patch,watch create TP-RBAC-005 warning
get,update,patch,list create TP-RBAC-006 warning
get list TP-RBAC-002 failure
CASES
