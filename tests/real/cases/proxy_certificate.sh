# The certificate is issued while the proxy runs, by an authority that checks who asks; to show it again is no reason for another.
# personas: k8s-proxy proxy proxy-serve
. "$HERE/proxy.sh"
. "$HERE/acme.sh"
acme_start
grants "$(groups lab:admins)"
# With one of its own the replica has to say that it is the one that orders.
# shellcheck disable=SC2016 # expands in jq
proxy_start auth 'apiServerProxy: {enabled: true, mode: $mode, serviceName: "svc:kube", issueCerts: true}'
client_start
admins
await 30 "the proxy to answer" reaches
orders=$(issued)
[ "$orders" -ge 1 ] || fail "nothing was issued"
k get namespace "$NS" >/dev/null
k auth whoami >/dev/null
is "orders" "$(issued)" "$orders"
seen_as "$(login client)" lab:admins
