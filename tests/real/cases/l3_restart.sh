# Whatever happened to the process before, there is exactly one copy of the rules while it runs, and none when it was asked
# to stop (netfilter.md 14, scenarios 17 and 18).
# personas: boot
# original: no, each start adds another copy, and a stop removes none (netfilter.md N2, N6)
. "$HERE/netns.sh"
for backend in $backends; do
  scene "$backend" b1
  before=$(rules)
  pod_start TS_DEST_IP="${backend4}1"
  first=$(rules)
  [ -n "$(ours)" ] || fail "no rules of ours: $first"
  for _ in 1 2 3; do
    pod_kill
    is "rules after a SIGKILL" "$(rules)" "$first"
    answers peer tcp $own4 80 "b1 $pod4"
    pod_start TS_DEST_IP="${backend4}1"
    is "rules after a restart" "$(rules)" "$first"
  done
  # With another target nothing of the first is left.
  pod_kill
  pod_start TS_DEST_IP="${backend4}2"
  is "rules for another target" "$(rules)" "${first//${backend4}1/${backend4}2}"
  stop pod
  is "what is left" "$(rules)" "$before"
done
