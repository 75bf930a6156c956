# The official JavaScript client: objects, watch, logs, exec, terminal, attach, 100 MB both ways, port-forward.
# personas: direct k8s-proxy proxy
. "$HERE/proxy.sh"
. "$HERE/everything.sh"
everything env node "$BIN/../javascript/everything.mjs"
