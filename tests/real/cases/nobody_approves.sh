# Nobody approves the device: a class of its own, at the deadline for humans.
# personas: boot
start node "${up[@]}" TS_AUTHKEY="$(auth_key unapproved)" TS_HOSTNAME="$NS-node" TS_BOOT_TIMEOUT=5s TAILPOD_LOGIN_TIMEOUT=5s
exits node 14 20
said node "machine authorization required, please visit the admin panel"
