# What would be installed is what `boot --check` prints, down to the listing; how the installed rules differ from it is
# what `doctor` says, and what it gives to paste mends it.
# personas: boot
# takes: 20
. "$HERE/netns.sh"
# doctor CODE: what it finds of the rules, and that it ends with this code.
doctor() {
  local status=0
  in_pod "$TAILPOD" doctor --only TP-HOST-005 --json >"$CASE/doctor.json" 2>"$CASE/doctor.err" || status=$?
  is "exit code of doctor" "$status" "$1"
}
# found TEXT: so it says.
found() {
  jq -r '.findings[] | "\(.level): \(.sentence)"' "$CASE/doctor.json" >"$CASE/doctor.out"
  grep -qF -- "$1" "$CASE/doctor.out" || fail "doctor does not say \`$1\`: $(cat "$CASE/doctor.out")"
}
# listing [COMMAND...]: a line for each rule and each element, in no order: a map has none.
listing() { "${@:-ours}" | tr ',{}' '\n\n\n' | sed 's/^[\t ]*//; s/ *$//' | grep . | sort; }
mended() {
  # What there is to paste, as it is; the name of the Pod is not in it.
  jq -r '.findings[] | .remedy // empty' "$CASE/doctor.json" >"$CASE/remedy"
  in_pod sh -e "$CASE/remedy" || fail "what doctor gives to paste does not work: $(cat "$CASE/remedy")"
  is "rules after what doctor gives to paste" "$(listing)" "$before"
  doctor 0
}
for backend in $backends; do
  scene "$backend" b1 peer
  in_kubernetes
  { egress_service web 10001; egress_service api 10002; } | together | mounted egress-services
  asked=("${kube_env[@]}" TS_DEST_IP="${backend4}1" TS_EGRESS_PROXIES_CONFIG_PATH="$CASE/proxies")
  pod_start "${asked[@]}"
  await 10 "the status" secret_has pod egress-services
  before=$(listing)
  kill -STOP "${pid[pod]}" # or it mends what is changed by hand

  # The plan, with what it did not know put in, makes the same of an empty namespace.
  in_pod "$TAILPOD" boot --check --json >"$CASE/check.json" || fail "it finds something wrong: $(cat "$CASE/check.json")"
  is "packet rules in the text" "$(in_pod "$TAILPOD" boot --check | grep -c "10001.*$peer4 . 80")" 1
  if [ "$backend" = nftables ]; then
    net planned
    jq -r .rules "$CASE/check.json" | sed "s/<IPv4 of the node>/$own4/g; s/<IPv6 of the node>/$own6/g" | at planned nft -f -
    for table in tailpod_l3 tailpod_egress; do
      diff <(listing at planned nft list table ip $table) <(listing at pod nft list table ip $table) >&2 || fail "another $table than planned"
    done
  fi
  doctor 0
  found "ok: tailpod_l3 is as it should be (ip: "
  found "ok: tailpod_egress is as it should be (ip: "

  case $backend in
  nftables)
    at pod nft -f - <<NFT
delete element ip tailpod_egress ports { tcp . 10001 }
add element ip tailpod_egress ports { udp . 10009 comment "by hand" : $peer4 . 9 }
insert rule ip tailpod_l3 tp_pre ip saddr $peer4 counter accept
flush chain ip tailpod_l3 tp_fwd
NFT
    doctor 3
    found 'missing: `ip tailpod_l3 tp_fwd oifname "tailscale0" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu`'
    found "not asked for: \`ip tailpod_l3 tp_pre ip saddr $peer4 [counter] accept\`"
    found "1 missing: \`ip tailpod_egress ports { tcp . 10001 comment \"web:TCP:10001 -> TCP:80\" : $peer4 . 80 }\`"
    found "1 not asked for: \`ip tailpod_egress ports { udp . 10009 comment \"by hand\" : $peer4 . 9 }\`"
    mended
    # Chains of another kind, and no table at all.
    at pod nft add chain ip tailpod_l3 of_somebody
    at pod nft delete table ip tailpod_egress
    doctor 3
    found "table ip tailpod_l3, with other chains"
    found "missing: \`table ip tailpod_egress\`"
    mended
    leftover() { at pod nft add table ip tailpod_ingress; }
    ;;
  *)
    at pod "$backend" -t nat -D TAILPOD-EG-PRE 1
    at pod "$backend" -t nat -I TAILPOD-L3-PRE -s $peer4 -j RETURN
    at pod "$backend" -t mangle -D FORWARD -j TAILPOD-L3-MSS
    doctor 3
    found 'missing: `iptables -t mangle -A FORWARD -j TAILPOD-L3-MSS`'
    found "not asked for: \`iptables -t nat -A TAILPOD-L3-PRE -s $peer4/32 -j RETURN\`"
    found "1 missing: \`iptables -t nat -A TAILPOD-EG-PRE ! -i tailscale0 -p tcp -m tcp --dport 10001 "
    mended
    leftover() { at pod "$backend" -t nat -N TAILPOD-IN-PRE; at pod "$backend" -t nat -A TAILPOD-IN-PRE -j RETURN; }
    ;;
  esac
  leftover
  doctor 3
  found "failure: tailpod_ingress is there, and these settings ask for none"
  mended

  # What cannot be known is not guessed; a config that is none is said, and what holds meanwhile.
  echo '{' | mounted egress-services
  doctor 3
  found "failure: tailpod_egress: \`$CASE/proxies/egress-services\` is no config: "
  if in_pod "$TAILPOD" boot --check >"$CASE/check.out"; then fail "--check takes it for a config"; fi
  grep -q "egress services: .* is no config" "$CASE/check.out" || fail "--check does not say what is wrong: $(cat "$CASE/check.out")"
  pod_kill
  nsenter --net="/proc/${pid[net-pod]}/ns/net" env -i PATH="$CASE/bin:$PATH" TS_USERSPACE=false TS_SOCKET=/nonexistent \
    TS_DEST_IP="${backend4}1" ${mode:+TS_DEBUG_FIREWALL_MODE="${mode%%-*}"} \
    "$TAILPOD" doctor --only TP-HOST-005 --json >"$CASE/doctor.json" 2>/dev/null || true
  found "skipped: what tailpod_l3 should hold is not known: nobody tells the node's addresses: "
done
