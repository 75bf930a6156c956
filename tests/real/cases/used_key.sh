# A single-use key that was used is a class of its own.
# personas: boot
key=$(auth_key once)
start first "${up[@]}" TS_AUTHKEY="$key" TS_HOSTNAME="$NS-first"
ready first
start second "${up[@]}" TS_AUTHKEY="$key" TS_HOSTNAME="$NS-second"
exits second 11 65
stop first
