# A hundred groups of three replicas, twenty at the same time, each with a schedule that is made up: who starts when, how slow the
# authority is, who is killed, stopped for a while or ended when. In each there is one order at most, and one certificate
# unless whoever ordered it was killed or lost the Lease in the middle; nobody writes who has lost the Lease. Who is asked
# to end in the middle lets its order end if that is soon, breaks it off otherwise, and takes its claim back: the next one
# may order then. How often that was is in the audit log: the authority sees of an order that was broken off before its
# last step only that nothing follows.
# Beside them a group with the usual 60 s, whose holder is killed: another takes over within 105 s.
# personas: certs
# limit: 300
# takes: 165
# nice: -5
. "$HERE/proxy.sh"
. "$HERE/acme.sh"
. "$HERE/certs.sh"
. "$HERE/lease.sh"
count=${SCHEDULES:-100}
groups=()
for ((i = 0; i < count; i++)); do
  groups+=("$(printf '%s-s%03d' "$NS" "$i")")
done
acme_start
writers_start "$NS-usual" "${groups[@]}"

lease_duration=60s candidates "$NS-usual"

# A schedule is what follows from its seed, which is shown when it fails. More at a time than this is more than the API
# server answers on two cores: each holder renews twice a second.
at_a_time=${AT_A_TIME:-20}
seed=${SEED:-$RANDOM}
echo "seed $seed" >&2
RANDOM=$seed
kinds=(KILL STOP STOP TERM)
plans=() slow=()
for ((i = 0; i < count; i++)); do
  plan=
  # After how long, what, to whom (the holder in most cases), and for how long in tenths of a second. One is always left.
  for ((events = 1 + RANDOM % 3, event = 0; event < events; event++)); do
    kind=${kinds[RANDOM % 4]}
    [ "$event" -lt 2 ] || kind=STOP
    plan+="$((RANDOM % 80)):$kind:$((RANDOM % 4 > 0 ? 3 : RANDOM % 3)):$((5 + RANDOM % 60)) "
  done
  plans+=("$plan")
  slow+=($((RANDOM % 8000)))
done

# play GROUP PLAN
play() {
  local group=$1 event at kind whom long victim
  for event in $2; do
    IFS=: read -r at kind whom long <<<"$event"
    sleep "$((at / 10)).$((at % 10))"
    victim=$group-$whom
    [ "$whom" != 3 ] || victim=$(holder "$group")
    if [ -z "$victim" ] || [ -z "${pid[$victim]-}" ]; then continue; fi # nobody has it right now
    kill "-$kind" "${pid[$victim]}" 2>/dev/null || continue
    if [ "$kind" = STOP ]; then
      sleep "$((long / 10)).$((long % 10))"
      kill -CONT "${pid[$victim]}"
    fi
  done
}

usual() {
  local before
  await 60 "a holder with the usual Lease" is_held "$NS-usual"
  before=$(holder "$NS-usual")
  kill -KILL "${pid[$before]}"
  await 110 "another holder with the usual Lease" taken "$NS-usual" "$before"
}

# outcomes: of every group with the short Lease: how many orders the authority took for it, how many certificates it gave, and
# how it stands: issued, aborted in the middle, marked as under way by somebody who is gone, or open.
outcomes() {
  kube "/api/v1/namespaces/$NS/secrets" >"$CASE/secrets.json"
  curl -fsS --max-time 10 "$shim_admin/log" >"$CASE/orders.json"
  jq -nc --slurpfile secrets "$CASE/secrets.json" --slurpfile orders "$CASE/orders.json" '
    ($secrets[0].items | map({key: .metadata.name, value: .}) | from_entries) as $secret
    | $orders[0] as $log
    | $ARGS.positional[] | . as $group | (. + ".lab.ts.net") as $domain
    | [$log[] | select(.name == $domain)] as $mine
    | $secret[$domain] as $its
    | {group: $group, orders: [$mine[] | select(.path == "/order-plz" and .state == "201")] | length,
       certificates: [$mine[] | select(.path == "/finalize-order/" and .state == "200")] | length,
       broken_off: [$mine[] | select(.path == "/finalize-order/" and .state == "lost")] | length,
       state: (if ($its.data["tls.crt"] // "") != "" then "issued"
         elif any($mine[]; .state == "lost") then "aborted"
         elif $its.metadata.annotations["tailpod.dev/cert-issuing"] then "marked" else "open" end)}' \
    --args "${groups[@]}" >"$CASE/outcomes"
}
# settled GROUP...: nothing is open in these any more.
settled() {
  outcomes
  local open
  open=$(jq -r 'select(.state == "open") | .group' "$CASE/outcomes")
  ! grep -qxF "$(printf '%s\n' "$@")" <<<"$open"
}

usual &
whole=$!
for ((first = 0; first < count; first += at_a_time)); do
  wave=("${groups[@]:first:at_a_time}")
  playing=()
  for ((i = first; i < first + ${#wave[@]}; i++)); do
    # The authority takes its time in half of them.
    [ "${slow[i]}" -ge 4000 ] || trouble "path=/finalize-order/&name=$(domain "${groups[i]}")&slow=${slow[i]}ms"
    candidates "${groups[i]}"
    play "${groups[i]}" "${plans[i]}" &
    playing+=($!)
  done
  wait "${playing[@]}"
  await 60 "the schedules of ${wave[0]} and on to end" settled "${wave[@]}"
  sleep 3 # for who might order once more
  for group in "${wave[@]}"; do
    for ordinal in 0 1 2; do
      kill -TERM "${pid[$group-$ordinal]}" 2>/dev/null || true
    done
  done
done
status=0
wait "$whole" || status=1
outcomes
history "$NS-" >"$CASE/history"
jq -s 'group_by(.state) | map({(.[0].state): length}) | add' -c "$CASE/outcomes" >&2
jq -s -c '[.[].takeovers[]] | {takeovers: length, longest: max}' "$CASE/history" >&2
[ "$status" = 0 ]
asked=()
for ((i = 0; i < count; i++)); do
  [[ ${plans[i]} != *TERM* ]] || asked+=("${groups[i]}")
done
# excess ALLOWED: the groups with more orders than this jq expression of what is known of them allows.
excess() {
  # shellcheck disable=SC2016 # expands in jq
  jq -r --slurpfile history "$CASE/history" --args '
    ([$history[] | {key: .group, value: .}] | from_entries) as $of
    | . as $it | $of[.group] as $claims | (.group | IN($ARGS.positional[])) as $asked
    | select(.orders > ('"$1"')) | "\(.group): \(.orders) orders, \($claims.claims) claims, \($claims.given_up) given up"' \
    "${asked[@]}" <"$CASE/outcomes" | paste -sd ';'
}
is "more than one certificate" "$(jq -r 'select(.certificates > 1) | .group' "$CASE/outcomes" | paste -sd ' ')" ""
# shellcheck disable=SC2016 # expands in jq
is "orders that nobody had claimed" "$(excess '$claims.claims')" ""
is "claims over claims" "$(jq -rs '[.[].overruled[]] | join("; ")' "$CASE/history")" ""
# shellcheck disable=SC2016 # expands in jq
is "orders besides the first" "$(excess '1 + if $asked then $claims.given_up else 0 end')" ""
is "what was written by others than the holder" "$(jq -rs '[.[].strays[]] | join("; ")' "$CASE/history")" ""
is "usual takeovers" "$(jq -c 'select(.group == env.NS + "-usual") | .takeovers | map(. <= 105)' "$CASE/history")" "[true]"
