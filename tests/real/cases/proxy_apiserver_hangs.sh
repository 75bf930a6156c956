# The API server accepts connections and says nothing: other clients and the health of the proxy do not suffer, and a
# request that was waiting is answered when it is back.
# personas: k8s-proxy proxy
. "$HERE/proxy.sh"
lab_of lab:admins
apiserver_pause
http "/api/v1/namespaces/$NS/configmaps" -o /dev/null -w '%{http_code}' >"$CASE/waiting" &
waiting=$!
sleep 2
running proxy || fail "it ended"
apiserver_resume
wait "$waiting"
is "the request that waited" "$(cat "$CASE/waiting")" 200
