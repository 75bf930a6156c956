# Nobody visits the URL: at the deadline for humans the start ends with a class of its own.
# personas: boot
start node "${up[@]}" TS_HOSTNAME="$NS-node" TS_BOOT_TIMEOUT=5s TAILPOD_LOGIN_TIMEOUT=5s
exits node 15 20
said node "$CONTROL/auth/"
