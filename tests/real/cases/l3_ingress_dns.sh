# M2: what peers send to the node is spread over the addresses of a name, new connection by new connection (netfilter.md
# 14, scenarios 4 and 7).
# personas: containerboot boot
. "$HERE/netns.sh"
for backend in $backends; do
  # With nftables the original knows one address only, and IPv6 with neither (netfilter.md N1, N8).
  if original && [ "$backend" = nftables ]; then continue; fi
  scene "$backend" b1 b2 b3
  no_icmp_errors
  named_app 1 2 3
  pod_start TS_EXPERIMENTAL_DEST_DNS_NAME=app.test
  for network in tcp udp; do
    is "who answers on $network" "$(asks peer $network $own4 80 30 | sort | uniq -c | xargs)" "10 b1 $pod4 10 b2 $pod4 10 b3 $pod4"
    original || is "who answers on $network" "$(asks peer $network $own6 80 30 | sort | uniq -c | xargs)" \
      "10 b1 $pod6 10 b2 $pod6 10 b3 $pod6"
  done
  bulk peer $own4 80
  at peer ping -n -q -c 1 -W 2 $own4 >"$CASE/complaint" || fail "no echo"
  original || { bulk peer $own6 80 && at peer ping -n -q -c 1 -W 2 $own6 >"$CASE/complaint" || fail "no echo"; }
  stop pod
done
