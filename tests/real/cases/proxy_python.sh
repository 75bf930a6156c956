# The official Python client: objects, watch, logs, exec, terminal, attach, 100 MB both ways, port-forward.
# personas: direct k8s-proxy proxy
# takes: 15
. "$HERE/proxy.sh"
. "$HERE/everything.sh"
everything "$BIN/../python/bin/python" "$HERE/../clients/everything.py"
