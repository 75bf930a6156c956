# `cp` of 100 MB, both ways, byte for byte; over SPDY too.
# personas: direct k8s-proxy proxy
. "$HERE/proxy.sh"
lab_of lab:admins
pod_start
head -c 100000000 /dev/urandom >"$CASE/original"
want=$(md5sum <"$CASE/original")
both() {
  rm -rf "$POD/there" "$CASE/back"
  "$@" k cp "$CASE/original" web:there -c main >/dev/null
  is "what arrived there" "$(md5sum <"$POD/there")" "$want"
  "$@" k cp web:there "$CASE/back" -c main >/dev/null
  is "what came back" "$(md5sum <"$CASE/back")" "$want"
}
both
both spdy
rm -f "$CASE/original" "$CASE/back"
seen_as "$(login client)" lab:admins
