# M2: the name gets other addresses, in another order, none at all (netfilter.md 14, scenarios 4, 5 and 8).
# personas: boot
# original: no, it looks every 10 minutes whatever the TTL (netfilter.md 5.2)
# takes: 35
# What takes the time here is the same with all backends.
L3_BACKENDS=${L3_BACKENDS:-nftables}
. "$HERE/netns.sh"
spread() { [ "$(asks peer tcp $own4 80 30 | sort | uniq -c | xargs)" = "$1" ]; }
asked() { grep -c '^asked app.test 1$' "$CASE/dns.out"; }
asked_again() { [ "$(asked)" -ge "$1" ]; }
for backend in $backends; do
  scene "$backend" b1 b2 b3
  rm -f "$CASE/standin.json"
  # Nobody knows the name at first.
  named app.test fail
  pod_run TS_EXPERIMENTAL_DEST_DNS_NAME=app.test
  await 20 "three questions" asked_again 3
  said pod "$ready_line" && fail "it is ready without rules"
  named_app 1 2 3
  ready pod
  await 10 "all three" spread "10 b1 $pod4 10 b2 $pod4 10 b3 $pod4"

  # Each answer has another order; nothing is done about it.
  setsid nsenter --net="/proc/${pid[net-pod]}/ns/net" stdbuf -oL nft monitor >"$CASE/monitor" 2>&1 </dev/null &
  pid[stay-monitor]=$!
  sleep 0.3
  before=$(asked)
  await 20 "three more questions" asked_again $((before + 3))
  is "changes of rules" "$(grep -cE '^(add|delete|flush|insert|replace)' "$CASE/monitor" || true)" 0

  # One is gone; who talks with another does not notice.
  at_start peer load-two load -tcp 30 -udp 0 -rate 600 -new 0 $own4:80
  named_app 1 2
  await 10 "two" spread "15 b1 $pod4 15 b2 $pod4"
  nothing_lost load-two

  # No answer is not the answer that there are none.
  named app.test fail
  before=$(asked)
  await 20 "three failures" asked_again $((before + 3))
  spread "15 b1 $pod4 15 b2 $pod4" || fail "the rules are gone"
  named_app 3
  await 20 "the third alone" spread "30 b3 $pod4"
  answers peer tcp $own6 80 "b3 $pod6"
  stop pod
done
