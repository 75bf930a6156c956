# Tags that the tailnet does not give to this key are a class of its own.
# personas: boot
start node TS_EXTRA_ARGS="--login-server=$CONTROL --advertise-tags=tag:lab" TS_HOSTNAME="$NS-node" \
  TS_AUTHKEY="$(auth_key 'refuse=requested%20tags%20%5Btag%3Alab%5D%20are%20invalid%20or%20not%20permitted')"
exits node 12 65
said node tagOwners
