# Control answers nobody: not the key's fault, so a class of its own, at the boot deadline.
# personas: boot
control POST "/reject?status=503"
start node "${up[@]}" TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node" TS_BOOT_TIMEOUT=8s
exits node 16 20
