# 200 sequences of made-up changes: of egress Services, ingress Services, peers and own addresses, faster than they can be
# followed. After each the rules are those that follow from what was said last, and in the end the same as those of a
# process that knows nothing else. SEED says which sequences.
# personas: boot
# original: no, it ends when an own address has no family of the target, and keeps what was (netfilter.md N2, ha-services.md H2)
# limit: 900
. "$HERE/netns.sh"
seed=${SEED:-$RANDOM}
echo "seed $seed" >&2
RANDOM=$seed
mkdir -p "$CASE/made-up"
# change SEED: all three, in any order, with or without a pause.
change() {
  local file
  "$HERE/l3-model" next "$1" "$CASE/made-up"
  for file in $(shuf -e egress-services ingress-config.json standin.json --random-source=<(yes "$1")); do
    case $file in
    standin.json) cp "$CASE/made-up/$file" "$CASE/$file.new" && mv "$CASE/$file.new" "$CASE/$file" ;;
    *) mounted "$file" <"$CASE/made-up/$file" ;;
    esac
    [ $((RANDOM % 3)) != 0 ] || sleep "0.$((RANDOM % 4))"
  done
}
differences() { diff <("$HERE/l3-model" desired "$CASE/made-up") <(ours | "$HERE/l3-model" installed); }
as_desired() { differences >&2; }
sources_right() { # what leaves for the tailnet has one of the node's own addresses
  local own
  own=$(jq -r '.self.ips[]' "$CASE/standin.json")
  [ -z "$(ours | grep -E 'snat|SNAT' | grep -oE '100\.64\.0\.[0-9]+|fd7a:115c:a1e0::[0-9a-f]+' | grep -vxF "$own")" ]
}
for backend in $backends; do
  netns_start
  address pod tailscale0 100.64.0.3/10 fd7a:115c:a1e0::3/48
  backend "$backend"
  in_kubernetes
  change "$seed-$backend"
  pod_start "${kube_env[@]}" TS_EGRESS_PROXIES_CONFIG_PATH="$CASE/proxies" \
    TS_INGRESS_PROXIES_CONFIG_PATH="$CASE/proxies/ingress-config.json"
  count=20
  [ "$backend" != nftables ] || count=160
  for ((sequence = 0; sequence < count; sequence++)); do
    for ((step = 0; step <= RANDOM % 4; step++)); do change "$seed-$backend-$sequence-$step"; done
    await 10 "sequence $sequence of $backend with seed $seed to be as desired" as_desired
    await 5 "sources of sequence $sequence" sources_right
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
