# shellcheck shell=bash
# The case of an official client: everything COMMAND... does what tests/real/clients/everything.* say.
everything() {
  local there args=(-)
  lab_of lab:admins
  pod_start
  head -c 5000000 /dev/urandom >"$POD/file"
  there=$(lab_port)
  subject=(python3 -m http.server --bind 127.0.0.1 --directory "$POD" "$there")
  start web
  direct || args=("$(login client)" lab:admins)
  "$@" "$CASE/client.kubeconfig" "$NS" "$POD" "$there" "${args[@]}" >"$CASE/everything" 2>&1 ||
    { tail -n 20 "$CASE/everything" >&2; fail "it failed"; }
  rm -f "$POD/there" "$POD-original"
  seen_as "$(login client)" lab:admins
}
