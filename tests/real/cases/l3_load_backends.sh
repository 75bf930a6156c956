# Backends come and go behind a name under 1,000 streams with 10,000 packets a second and 200 new ones a second: no stream
# ends and no new one is refused; whoever is talked to already is talked to no differently (netfilter.md 14, scenario 16).
# personas: boot
# original: no, it looks every 10 minutes, and then flushes first (netfilter.md N3)
# limit: 240
# takes: 45
# nice: -10
. "$HERE/netns.sh"
for backend in $backends; do
  scene "$backend" b1 b2 b3
  named_app 1 2 3
  pod_start TS_EXPERIMENTAL_DEST_DNS_NAME=app.test
  await 10 "the backends" eval '[ -n "$(asks peer tcp $own4 80)" ]'
  at_start peer load-all load -tcp 1000 -udp 0 $own4:80
  for ((change = 1; change <= 8; change++)); do
    case $((change % 4)) in
    0) named_app 1 2 3 ;;
    1) named_app 1 2 ;;
    2) named_app 2 ;;
    3) named_app 3 1 ;;
    esac
    sleep 1.6
  done
  unharmed "$change"
  stop pod
done
