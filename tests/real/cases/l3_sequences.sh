# 200 sequences of made-up changes: of egress Services, ingress Services, peers and own addresses, faster than they can be
# followed. After each the rules are those that follow from what was said last, and in the end the same as those of a
# process that knows nothing else. SEED says which sequences.
# personas: boot
# original: no, it ends when an own address has no family of the target, and keeps what was (netfilter.md N2, ha-services.md H2)
# limit: 600
# takes: 150
. "$HERE/netns.sh"
seed=${SEED:-$RANDOM}
echo "seed $seed" >&2
RANDOM=$seed
# All of them at once: number 0 is what the process finds when it starts.
declare -A steps=() counts=([nftables]=160 [iptables-legacy]=20 [iptables-nft]=20)
for backend in $backends; do
  for ((sequence = 0; sequence <= counts[$backend]; sequence++)); do
    made=()
    for ((step = 0, last = RANDOM % 4; step <= last; step++)); do made+=("$seed-$backend-$sequence-$step"); done
    steps[$backend-$sequence]=${made[*]}
  done
done
printf '%s\n' "${steps[@]}" | "$HERE/l3-model" make-up "$CASE/made-up"
# change NAME: all three files, in any order, with or without a pause.
orders=("egress ingress node" "egress node ingress" "ingress egress node" "ingress node egress" "node egress ingress" "node ingress egress")
change() {
  local what
  now=$CASE/made-up/$1
  for what in ${orders[RANDOM % 6]}; do
    case $what in
    egress) mounted egress-services <"$now/egress-services" ;;
    ingress) mounted ingress-config.json <"$now/ingress-config.json" ;;
    node) cp "$now/standin.json" "$CASE/standin.new" && mv "$CASE/standin.new" "$CASE/standin.json" ;;
    esac
    [ $((RANDOM % 3)) != 0 ] || sleep "0.$((RANDOM % 4))"
  done
}
# changes SEQUENCE: of this backend, one after the other.
changes() {
  local step
  for step in ${steps[$backend-$1]}; do change "$step"; done
}
# The rules are those that follow, and what leaves for the tailnet has one of the node's own addresses.
# One process answers for all of them.
coproc model { "$HERE/l3-model" compare "$CASE/installed"; }
as_desired() {
  local differences
  ours "${programs[@]}" >"$CASE/installed"
  echo "$now" >&"${model[1]}"
  read -r differences <&"${model[0]}"
  [ -z "$differences" ] || { echo "$differences" >&2; return 1; }
}
for backend in $backends; do
  netns_start
  address pod tailscale0 100.64.0.3/10 fd7a:115c:a1e0::3/48
  backend "$backend"
  case $backend in nftables) programs=(nft) ;; *) programs=("$backend-save" "ip6${backend#ip}-save") ;; esac
  in_kubernetes
  changes 0
  pod_start "${kube_env[@]}" TS_EGRESS_PROXIES_CONFIG_PATH="$CASE/proxies" \
    TS_INGRESS_PROXIES_CONFIG_PATH="$CASE/proxies/ingress-config.json"
  for ((sequence = 1; sequence <= counts[$backend]; sequence++)); do
    changes "$sequence"
    await 10 "sequence $sequence of $backend with seed $seed to be as desired" as_desired
  done
  running pod || fail "it ended"
  last=$(ours)
  pod_kill
  pod_start "${kube_env[@]}" TS_EGRESS_PROXIES_CONFIG_PATH="$CASE/proxies" \
    TS_INGRESS_PROXIES_CONFIG_PATH="$CASE/proxies/ingress-config.json"
  await 10 "the rules of another process" as_desired
  is "the rules of another process" "$(ours)" "$last"
  stop pod
  is "what is left of ours" "$(ours)" ""
done
