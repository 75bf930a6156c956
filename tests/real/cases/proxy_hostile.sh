# The requests with bad intentions, through a real tailnet to the real API server: refused as the list says and never seen
# there, or on record there as the client's and nobody else's, as often as the list says.
# personas: proxy proxy-serve k8s-proxy
# original: no, much of what cannot be read is refused without a Status, and some of it passes
# takes: 25
. "$HERE/proxy.sh"
list=$HERE/../../fixtures/proxy/hostile.txt
lab_of lab:people
address=$(proxy_url)
address=${address#https://}
case $address in *:*) ;; *) address+=:443 ;; esac
through_tailnet=("$client_port" "${address%:*}" "${address#*:}" "$CASE/ca.crt")
view='"impersonate":{"groups":["lab:people"]}'
recorder='"recorderAddrs":["100.64.0.5:80"]'

if [ "$PERSONA" = k8s-proxy ] && ! original; then # its tailscaled has its socket where nobody else looks
  daemon=/proc/$(child proxy tailscaled)
  mkdir "$CASE/peer"
  ln -s "$daemon/root$(tr '\0' '\n' <"$daemon/cmdline" | sed -n 's/^--socket=//p')" "$CASE/peer/tailscaled.sock"
fi

# has_rules RULES: whether that is what tailscaled says about the client. Nobody can ask the original's, which is out with
# the first of them.
client_ip=$(node client '.TailscaleIPs[0]')
has_rules() {
  original || [ "$(localapi peer "whois?addr=$client_ip:1" | jq -c --arg name "$grants_of_kubernetes" '.CapMap[$name]')" = "$1" ]
}

# sends NAME WAY...: all that the list has in that scene. Each request says which of them it is.
sends() {
  echo "$1" >>"$CASE/sent"
  "$BIN/../python/bin/python" "$HERE/hostile" "$list" "$1" "$NS" "$client_ip" "$CASE/record" "${@:2}" ||
    fail "the scene $1 went wrong"
}

# has RULE: the client is given that rule.
has() {
  grants "$1"
  await 10 "the rule $1" has_rules "[$(jq -c . <<<"$1")]"
}
# scene NAME RULE: all that the list has for a client with that rule.
scene() {
  has "$2"
  sends "$1" "${through_tailnet[@]}"
}

# call LOGIN: that is the client's name, as control tells the proxy's node, which hears of nothing else from then on.
call() {
  control POST "/nodes/$(node_id peer)/user?id=$(node client .Self.UserID)&login=$(jq -rn --arg login "$1" '$login | @uri')"
  await 10 "the name $1" has_login "$1"
}
has_login() { localapi peer "whois?addr=$client_ip:1" | jq -e --arg login "$1" '.UserProfile.LoginName == $login' >/dev/null; }

# on_record: what the API server got from the proxy for a client, and what says that it is of the list, whoever sent it:
# identifier and target. Not what `reaches` asks. A 401 is on record when its answer begins, and a session then, too.
on_record() {
  { grep -F -e "\"system:serviceaccount:$NS:proxy\"" -e "\"auditID\":\"$NS/" "$LAB/audit.log" || true; } |
    jq -r 'select(.impersonatedUser or (.auditID | startswith(env.NS + "/")))
      | select(.stage != "ResponseStarted" or .responseStatus.code == 401)
      | select(.requestURI != "/version") | "\(.auditID) \(.requestURI)"' | sort
}
missing() { comm -13 <(on_record) <(sort "$CASE/record-must"); }
strays() { comm -23 <(on_record) <(sort "$CASE/record-must") | comm -23 - <(sort "$CASE/record-may"); }
nothing_missing() { [ -z "$(missing)" ] || ! missing | paste -sd , >&2; }

scene user "{$view}"
if [ "$PERSONA" = proxy-serve ]; then
  # tailscaled says who the client is ahead of all that it sends, and so this is how to be it.
  sends bare "$proxy_port"
  sends nobody "$proxy_port"
fi
scene asking '{"impersonate":{"groups":["lab:people"],"allow":["edit"]}}'
scene enforced "{$view,\"enforceRecorder\":true}"
scene recorded "{$view,\"enforceRecorder\":true,$recorder}"
scene open "{$view,$recorder}"
scene unreadable '"x"'
grants_of_kubernetes=https://$grants_of_kubernetes scene unreadable-legacy '[]'
has "{$view}"
call ""
sends no-login "${through_tailnet[@]}"
call $'a\r\nImpersonate-Group: system:masters'
sends evil-login "${through_tailnet[@]}"
call system:serviceaccount:kube-system:x
sends service-account "${through_tailnet[@]}"
call "$(login client)"
if [ "$PERSONA" = proxy ]; then
  stop proxy
  proxy_mode=noauth proxy_run
  await_said proxy "API server proxy in noauth mode is listening on"
  sends noauth "${through_tailnet[@]}"
fi

case $PERSONA in
proxy) elsewhere="bare nobody" ;;
proxy-serve) elsewhere=noauth ;;
*) elsewhere="bare noauth nobody" ;;
esac
is "scenes left out" "$(sed -n 's/^[^#|]* | \([^ ]*\) | .*/\1/p' "$list" | sort -u | grep -vxFf "$CASE/sent" | xargs)" "$elsewhere"

# What nobody waited for would be there before this. The retries are for tunnels that lead nowhere, as in lib/hostile.
http /api/v1/pods -o /dev/null -H "Audit-Id: $NS/last" --connect-timeout 2 --retry 5
echo "$NS/last /api/v1/pods" >>"$CASE/record-must"
[ "$(wc -l <"$CASE/record-must")" -ge 50 ] || fail "too little was to arrive"
await 5 "all on record that may pass" nothing_missing
is "what else arrived" "$(strays)" ""
seen_as "$(login client)" lab:people
