# The sandbox with programs that are not ours: the original beside the stand-ins, kubectl at the API server, and the real
# daemon in such a Pod.
# personas: boot
in_sandbox() { # NAME COMMAND... ; the flags before the command are in `flags`
  local name=$1
  shift
  subject=("$TAILPOD" sandbox "${flags[@]}" -- "$@")
  start "$name" "${env[@]}"
}
flags=() env=()

in_sandbox original "$BIN/containerboot"
ready original
stop original

in_sandbox kubectl sh -c "kubectl patch secret tailscale -p '{\"stringData\":{\"added\":\"by kubectl\"}}' &&
  kubectl get secret tailscale -o jsonpath='{.data.added}'"
exits kubectl 0
said kubectl "$(printf 'by kubectl' | base64)" || fail "what kubectl wrote is not there"

# The state is in the pretend Secret, and the node is one of the real tailnet.
for program in "$TAILPOD boot" "$BIN/containerboot"; do
  name=real-$(basename "${program% boot}")
  flags=(--with-tailscaled "--login-server=$CONTROL") env=(TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-$name")
  in_sandbox "$name" sh -c "$program & child=\$!; trap 'kill -TERM \$child' TERM
    until kubectl get secret tailscale -o jsonpath='{.data.device_fqdn}' | grep -q .; do sleep 0.1; done
    kubectl get secret tailscale -o go-template='{{range \$key, \$_ := .data}}has {{\$key}} {{end}}'
    wait \$child; wait \$child"
  await_said "$name" "has device_fqdn"
  for key in _current-profile _machinekey tailscale_capver; do
    said "$name" "has $key" || fail "there is no $key in the Secret"
  done
  control GET /nodes | jq -e --arg host "$NS-$name" 'any(.[]; .hostname == $host)' >/dev/null || fail "the tailnet has no such node"
  stop "$name"
done
