# With which words tailscaled turns names away, without an order; and that the authority's own refusal is told.
# personas: lab
. "$HERE/proxy.sh"
. "$HERE/acme.sh"
. "$HERE/certs.sh"
acme_start 7776000 blocked.lab.ts.net
cert_domains "$NS-shop.lab.ts.net" blocked.lab.ts.net
node_start peer
own=$NS-peer.lab.ts.net
list="must be one of [\"kube.lab.ts.net\" \"$NS-shop.lab.ts.net\" \"blocked.lab.ts.net\" \"$own\"]"
refused() {
  ask peer "$1"
  answered peer 500 "$2"
}
refused "$NS-other.lab.ts.net" "invalid domain \"$NS-other.lab.ts.net\"; $list"
refused "$NS-Shop.lab.ts.net" "invalid domain \"$NS-Shop.lab.ts.net\"; $list"
refused nodot "invalid domain"
refused a..b "invalid domain"
refused "*.$own" "wildcard certificates are not enabled for this node"
ask peer "$own" min_validity=soon
answered peer 400 "invalid validity parameter"
is "orders" "$(ordered true)" 0
refused blocked.lab.ts.net 'urn:ietf:params:acme:error:rejectedIdentifier: Order included an identifier for which issuance is forbidden by policy: "blocked.lab.ts.net"'
ask peer "$NS-shop.lab.ts.net"
answered peer 200
is "certificates" "$(fulfilled "$NS-shop.lab.ts.net")" 1

# The list and the switch for HTTPS change under a running daemon.
cert_domains "$NS-later.lab.ts.net"
await 5 "the name to go" refused "$NS-shop.lab.ts.net" "invalid domain"
ask peer "$NS-later.lab.ts.net"
answered peer 200
control POST "/nodes/$(node_id peer)/https?off"
https_is_off() { [ "$(localapi peer cert-domains)" = null ]; }
await 5 "HTTPS to be off" https_is_off
refused "$own" "your Tailscale account does not support getting TLS certs"
control POST "/nodes/$(node_id peer)/https"
await 5 "HTTPS to be on" eval '! https_is_off'
ask peer "$own"
answered peer 200
