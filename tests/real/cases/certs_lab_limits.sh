# What becomes of an authority's troubles on their way through tailscaled. It waits out a 429 and any 5xx itself, for
# Retry-After or 1, 2, 4, 8, 10 s, as long as somebody asks: who asks sees no answer, and no 429. That comes through only
# with another status, or a time that is over.
# personas: lab
. "$HERE/proxy.sh"
. "$HERE/acme.sh"
. "$HERE/certs.sh"
acme_start
cert_domains "$NS-"{a,b,c,d,e,f}.lab.ts.net
node_start peer
limited='type=rateLimited&detail=too%20many'

trouble "path=/order-plz&status=429&$limited&retry-after=2&times=1"
began=$SECONDS
ask peer "$NS-a.lab.ts.net"
answered peer 200
[ $((SECONDS - began)) -ge 2 ] || fail "it did not wait"
is "orders" "$(orders "$NS-a.lab.ts.net") of $(ordered '.path == "/order-plz"')" "1 of 2"

# For longer than anybody waits; and whoever hangs up ends the order.
trouble "path=/order-plz&status=429&$limited&retry-after=1020"
ask peer "$NS-b.lab.ts.net" "" 2
answered peer 000
is "attempts" "$(ordered '.state == "429"')" 2
no_trouble
await 5 "its log" said peer "cert(\"$NS-b.lab.ts.net\"): getCertPEM: 429 urn:ietf:params:acme:error:rateLimited: too many"
is "orders" "$(orders "$NS-b.lab.ts.net")" 0
trouble "path=/order-plz&status=500&type=serverInternal&detail=oops&times=1"
ask peer "$NS-b.lab.ts.net"
answered peer 200

# What was issued by then is nobody's when it is hung up on before it is fetched: its key went with the question, and the
# next one is another order.
trouble "path=/certZ/&hang"
ask peer "$NS-f.lab.ts.net" "" 6
answered peer 000
no_trouble
is "orders and certificates" "$(orders "$NS-f.lab.ts.net") $(fulfilled "$NS-f.lab.ts.net")" "1 1"
ask peer "$NS-f.lab.ts.net"
answered peer 200
is "orders and certificates" "$(orders "$NS-f.lab.ts.net") $(fulfilled "$NS-f.lab.ts.net")" "2 2"

# The types that do get through.
trouble "path=/order-plz&status=403&$limited&retry-after=17&times=1"
ask peer "$NS-c.lab.ts.net"
answered peer 429 "403 urn:ietf:params:acme:error:rateLimited: too many"
is "Retry-After" "$(header peer Retry-After)" 17
trouble "path=/order-plz&status=429&$limited&retry-after=Wed,%2021%20Oct%202015%2007:28:00%20GMT&times=1"
ask peer "$NS-c.lab.ts.net"
answered peer 429 "429 urn:ietf:params:acme:error:rateLimited: too many"
is "Retry-After" "$(header peer Retry-After)" ""
trouble "path=/finalize-order/&status=403&$limited&retry-after=17&times=1"
ask peer "$NS-c.lab.ts.net"
answered peer 500 "CreateOrder: 403 urn:ietf:params:acme:error:rateLimited: too many"

# The authority dies in the middle of an order, and forgets everybody.
trouble "path=/finalize-order/&hang"
ask peer "$NS-d.lab.ts.net" &
asking=$!
await 10 "an order" held /finalize-order/
is "the warning meanwhile" "$(localapi peer status | jq '[.Health[] | select(test("Fetching TLS certificate"))] | length')" 1
acme_kill
no_trouble
wait "$asking"
answered peer 500 "CreateOrder: Post"
ask peer "$NS-d.lab.ts.net"
answered peer 500 "acme.GetReg: Get"
acme_run
ask peer "$NS-d.lab.ts.net"
answered peer 200
is "certificates" "$(fulfilled "$NS-d.lab.ts.net")" 1

# A certificate of the authority before cannot be named as the one to replace.
ask peer "$NS-a.lab.ts.net" min_validity=2159h59m59s
answered peer 500 "malformed"
