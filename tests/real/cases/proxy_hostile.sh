# The requests with bad intentions, through a real tailnet to the real API server: refused as the list says, or on record
# there as the client's and nobody else's.
# personas: proxy proxy-serve
# takes: 15
. "$HERE/proxy.sh"
list=$HERE/../../fixtures/proxy/hostile.txt
lab_of lab:people
address=$(proxy_url)
address=${address#https://}
case $address in *:*) ;; *) address+=:443 ;; esac
view='"impersonate":{"groups":["lab:people"]}'
recorder='"recorderAddrs":["100.64.0.5:80"]'

# has_rules RULES: whether that is what tailscaled says about the client.
client_ip=$(node client '.TailscaleIPs[0]')
has_rules() {
  [ "$(localapi peer "whois?addr=$client_ip:1" | jq -c --arg name "$grants_of_kubernetes" '.CapMap[$name]')" = "$1" ]
}

# scene NAME RULE: all that the list has for a client with that rule.
scene() {
  grants "$2"
  await 10 "the rules of $1" has_rules "[$(jq -c . <<<"$2")]"
  "$BIN/../python/bin/python" "$HERE/hostile" "$list" "$1" "$client_port" "${address%:*}" "${address#*:}" "$CASE/ca.crt" "$CASE/allowed" ||
    fail "the scene $1 went wrong"
}

seen=$(audit .auditID | wc -l)
scene user "{$view}"
scene asking '{"impersonate":{"groups":["lab:people"],"allow":["edit"]}}'
scene enforced "{$view,\"enforceRecorder\":true}"
scene recorded "{$view,\"enforceRecorder\":true,$recorder}"
scene open "{$view,$recorder}"
scene unreadable '"x"'

# The record of the API server: nobody but the client, nothing but what was meant to arrive.
seen_as "$(login client)" lab:people
jq -R . "$CASE/allowed" | jq -s 'map({(split(" ")[1]): true}) | add' >"$CASE/targets"
strays=$(audit . | tail -n "+$((seen + 1))" |
  jq -r --slurpfile allowed "$CASE/targets" 'select(.impersonatedUser) | .requestURI | select($allowed[0][.] | not)' | sort -u)
is "what else arrived" "$strays" ""
found=$(audit . | tail -n "+$((seen + 1))" | jq -c 'select(.impersonatedUser)' | wc -l)
[ "$found" -ge 50 ] || fail "only $found of the requests are on record"
