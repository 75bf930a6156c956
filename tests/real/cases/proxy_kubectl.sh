# The ordinary commands: get, apply, explain, delete, and who the API server thinks it is.
# personas: direct k8s-proxy proxy proxy-serve proxy-tun
. "$HERE/proxy.sh"
lab_of lab:admins lab:people
k get namespace "$NS" >/dev/null
for value in first second; do
  k apply -f - >/dev/null <<EOF
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {value: $value}
EOF
  is "value" "$(k get configmap settings -o 'jsonpath={.data.value}')" "$value"
done
k explain pod.spec >/dev/null
k delete configmap settings >/dev/null
is "configmaps left" "$(k get configmap settings --ignore-not-found)" ""
# An answer of more than one buffer, whole.
big=$(head -c 600000 /dev/zero | tr '\0' x)
jq -n --arg big "$big" '{apiVersion: "v1", kind: "ConfigMap", metadata: {name: "big"}, data: {big: $big}}' 2>/dev/null >"$CASE/big.json" ||
  printf '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"big"},"data":{"big":"%s"}}' "$big" >"$CASE/big.json"
k create -f "$CASE/big.json" >/dev/null
is "size of the big one" "$(k get configmap big -o 'jsonpath={.data.big}' | wc -c)" 600000
if ! direct; then
  k auth whoami -o json >"$CASE/whoami"
  is "user" "$(jq -r .status.userInfo.username "$CASE/whoami")" "$(login client)"
  is "groups" "$(jq -c .status.userInfo.groups "$CASE/whoami")" '["lab:admins","lab:people","system:authenticated"]'
fi
seen_as "$(login client)" lab:admins lab:people
