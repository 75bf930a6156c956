# What the commands beside the proxy say is what happens: the kubeconfig leads to it, and the peer is who `explain` says.
# personas: proxy-serve
. "$HERE/proxy.sh"
proxy_env=("${soon_withdrawn[@]}")
lab_of lab:admins lab:people
"$TAILPOD" proxy kubeconfig --socket "$CASE/peer/tailscaled.sock" --service svc:kube --name printed >"$CASE/printed"
whoami=$(HTTPS_PROXY="http://127.0.0.1:$client_port" kubectl --kubeconfig "$CASE/printed" --certificate-authority "$CASE/ca.crt" \
  auth whoami -o json)
is "user" "$(jq -r .status.userInfo.username <<<"$whoami")" "$(login client)"
explained=$("$TAILPOD" proxy explain --json --socket "$CASE/peer/tailscaled.sock" --peer "$(node_ips client | jq -r '.[0]')")
is "headers" "$(jq -c .asWhom.headers <<<"$explained")" \
  "[\"Impersonate-User: $(login client)\",\"Impersonate-Group: lab:admins\",\"Impersonate-Group: lab:people\"]"
is "groups" "$(jq -c .status.userInfo.groups <<<"$whoami")" '["lab:admins","lab:people","system:authenticated"]'
# The same from an answer of whois.
localapi peer "whois?addr=$(node_ips client | jq -r '.[0]'):0" >"$CASE/whois"
is "from whois" "$("$TAILPOD" proxy explain --json --whois "$CASE/whois")" "$explained"
status=0
"$TAILPOD" proxy explain --socket "$CASE/peer/tailscaled.sock" --peer 100.64.99.99 2>"$CASE/stranger" || status=$?
is "exit code for a stranger" "$status" 3
# Stopped, it has left nothing with a daemon that is not its own.
stop proxy
is "serve config" "$(localapi peer serve-config | jq -c '.Services // {}')" '{}'
is "advertised" "$(localapi peer prefs | jq -c '.AdvertiseServices // []')" '[]'
