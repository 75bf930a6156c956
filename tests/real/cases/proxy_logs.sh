# Logs, whole and followed: each line is there when it is written.
# personas: direct k8s-proxy proxy
. "$HERE/proxy.sh"
lab_of lab:admins
pod_start
seq 1 20000 >"$POD.log"
is "lines" "$(k logs web -c main | md5sum)" "$(md5sum <"$POD.log")"
KUBECONFIG=$CASE/client.kubeconfig KUBECACHEDIR=$CASE/kubecache setsid kubectl logs -f web -c main >"$CASE/followed" &
pid[follow]=$!
follows() { tail -n 1 "$CASE/followed" | grep -qx "$1"; }
await 5 "what was there" follows 20000
for line in first second; do
  echo "$line" >>"$POD.log"
  await 1 "$line" follows "$line"
  sleep 1
done
is "followed" "$(md5sum <"$CASE/followed")" "$(md5sum <"$POD.log")"
kill "${pid[follow]}"
seen_as "$(login client)" lab:admins
