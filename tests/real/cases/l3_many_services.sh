# 100,000 Services in a config are more than any cluster has, and no reason to stumble: the rules are there whole, or, where
# a program of the old kind takes too long for them, not at all; they go as they came, and what the Secret cannot take is
# one line. Time and memory are printed.
# personas: boot
# limit: 300
# original: no, it adds them one by one, which takes hours
# takes: 25
# iptables-legacy takes about as long, and iptables-nft 15 s only to list so many rules: too long for every day.
L3_BACKENDS=${L3_BACKENDS:-nftables}
. "$HERE/netns.sh"
# many COUNT TARGET-PORT: so many egress Services with a port each, half of them UDP. The file is whole when it appears.
many() {
  python3 - "$1" "$2" $peer4 <<'PYTHON' | mounted egress-services
import json, sys
count, target, ip = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
print(json.dumps({f"ns-service-{n}": {"healthCheckEndpoint": "", "tailnetTarget": {"ip": ip, "fqdn": ""}, "ports": [
    {"protocol": "UDP" if n % 2 else "TCP", "matchPort": 10000 + n // 2, "targetPort": target}]} for n in range(count)}))
PYTHON
}
# many_ingress COUNT: so many Services of the tailnet, all of them led to b1.
many_ingress() {
  python3 - "$1" "${backend4}1" <<'PYTHON' | mounted ingress-config.json
import ipaddress, json, sys
first, to = ipaddress.ip_address("100.100.0.1"), sys.argv[2]
print(json.dumps({f"svc:s{n}": {"IPv4Mapping": {"TailscaleServiceIP": str(first + n), "ClusterIP": to}} for n in range(int(sys.argv[1]))}))
PYTHON
}
installed() {
  case $backend in
  nftables) at pod nft list table ip "${1-tailpod_egress}" | grep -o ' comment ' ;;
  *) at pod "$backend-save" -t nat | grep '^-A TAILPOD-EG-PRE .*DNAT' ;;
  esac | wc -l
}
installed_is() { [ "$(installed)" = "$1" ]; }
refusal='the kernel refused the rules'
decided() { is_answered client tcp $pod4 59999 "peer $own4" || said pod "$refusal"; }
reported() { [ "$(secret pod egress-services | jq '.services | length')" = "$1" ]; }
for backend in $backends; do
  scene "$backend" peer:80:81
  in_kubernetes
  many 2 80
  pod_start "${kube_env[@]}" TS_EGRESS_PROXIES_CONFIG_PATH="$CASE/proxies"
  await 10 "the status" reported 2
  at_start pod load-generation generation
  many 100000 81
  from=${EPOCHREALTIME/./}
  await 60 "rules or a word" decided
  echo "$backend: $(installed) of 100,000 after $(((${EPOCHREALTIME/./} - from) / 1000)) ms," \
    "$(awk '/^VmHWM/ { printf "%d MiB", $2 / 1024 }' "/proc/${pid[pod]}/status") at most" >&2
  at_end load-generation
  answers client tcp $pod4 10000 "peer $own4"
  answers client udp $pod4 10000 "peer $own4"
  if said pod "$refusal"; then
    [ "$backend" != nftables ] || fail "the kernel refuses them"
    grep -aF "$refusal" "${log[pod]}" >&2
    is "what is there of them" "$(installed)" 2
    is "lines about it" "$(grep -caF "$refusal" "${log[pod]}")" 1
  else
    is "what is there of them" "$(installed)" 100000
    [ "$backend" != nftables ] || is "transactions" "$(tail -n 1 "$CASE/load-generation.out" | jq .Transactions)" 1
    answers client udp $pod4 35000 "peer $own4"
    await_said pod "Request entity too large" 60
    is "lines about the Secret" "$(grep -caF "cannot write the state Secret" "${log[pod]}")" 1
  fi
  running pod || fail "it ended"
  many 2 80
  await 120 "all but two to go" installed_is 2
  await 30 "the status" reported 2
  answers client tcp $pod4 10000 "peer $own4"
  refused client tcp $pod4 59999
  stop pod
done

# The same of the other kind: a Service's address is an element too.
backend=nftables
scene $backend b1
in_kubernetes
many_ingress 2
pod_start "${kube_env[@]}" TS_INGRESS_PROXIES_CONFIG_PATH="$CASE/proxies/ingress-config.json"
await 10 "the first" is_answered peer tcp 100.100.0.2 80 "b1 $pod4"
at_start pod load-generation generation
many_ingress 100000
from=${EPOCHREALTIME/./}
await 60 "the others" is_answered peer tcp 100.100.250.1 80 "b1 $pod4"
echo "$backend: ingress, after $(((${EPOCHREALTIME/./} - from) / 1000)) ms" >&2
at_end load-generation
is "transactions" "$(tail -n 1 "$CASE/load-generation.out" | jq .Transactions)" 1
is "what is there of them" "$(installed tailpod_ingress)" 100000
stop pod
