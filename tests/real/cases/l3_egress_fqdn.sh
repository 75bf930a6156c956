# M4: as M3, to the addresses of a name of the tailnet, both of them.
# personas: containerboot boot
. "$HERE/netns.sh"
for backend in $backends; do
  scene "$backend" peer
  no_icmp_errors
  pod_start TS_TAILNET_TARGET_FQDN=web.lab.ts.net
  carries client $pod4 80 peer $own4
  carries client $pod6 80 peer $own6
  stop pod
done
