# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_tailpod_global_optspecs
    string join \n list json q/quiet v/verbose color= log-format= h/help V/version
end

function __fish_tailpod_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_tailpod_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_tailpod_using_subcommand
    set -l cmd (__fish_tailpod_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c tailpod -n "__fish_tailpod_needs_command" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_needs_command" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_needs_command" -l list -d 'List the applets and the names they go by'
complete -c tailpod -n "__fish_tailpod_needs_command" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_needs_command" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_needs_command" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_needs_command" -s V -l version -d 'Print version'
complete -c tailpod -n "__fish_tailpod_needs_command" -f -a "boot" -d 'Bring a node up and keep it up (containerboot)'
complete -c tailpod -n "__fish_tailpod_needs_command" -f -a "proxy" -d 'Proxy the Kubernetes API over the tailnet (k8s-proxy)'
complete -c tailpod -n "__fish_tailpod_needs_command" -f -a "certs" -d 'Keep TLS certificates fresh and share them between replicas'
complete -c tailpod -n "__fish_tailpod_needs_command" -f -a "authkey" -d 'Request, wait for and clear auth keys'
complete -c tailpod -n "__fish_tailpod_needs_command" -f -a "secret" -d 'Look at the state Secret and mend it'
complete -c tailpod -n "__fish_tailpod_needs_command" -f -a "doctor" -d 'Find out why a node is not up'
complete -c tailpod -n "__fish_tailpod_needs_command" -f -a "sandbox" -d 'Play a Pod on this machine: a pretend cluster, tailscaled and operator'
complete -c tailpod -n "__fish_tailpod_needs_command" -f -a "install-links" -d 'Make the links that let this binary stand in for others'
complete -c tailpod -n "__fish_tailpod_needs_command" -f -a "generate" -d 'Write completions, man pages and the generated parts of the README'
complete -c tailpod -n "__fish_tailpod_needs_command" -f -a "complete" -d 'Words for completion scripts'
complete -c tailpod -n "__fish_tailpod_using_subcommand boot; and not __fish_seen_subcommand_from healthcheck" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand boot; and not __fish_seen_subcommand_from healthcheck" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand boot; and not __fish_seen_subcommand_from healthcheck" -l check -d 'Check the environment and every file it names, show the plan, and start nothing'
complete -c tailpod -n "__fish_tailpod_using_subcommand boot; and not __fish_seen_subcommand_from healthcheck" -l print-settings -d 'Print what the environment means as JSON, without secrets, and start nothing'
complete -c tailpod -n "__fish_tailpod_using_subcommand boot; and not __fish_seen_subcommand_from healthcheck" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand boot; and not __fish_seen_subcommand_from healthcheck" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand boot; and not __fish_seen_subcommand_from healthcheck" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand boot; and not __fish_seen_subcommand_from healthcheck" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand boot; and not __fish_seen_subcommand_from healthcheck" -f -a "healthcheck" -d 'Ask the boot in this container whether it is healthy (exec probe)'
complete -c tailpod -n "__fish_tailpod_using_subcommand boot; and __fish_seen_subcommand_from healthcheck" -l addr -d 'Where boot listens, if not where the environment says' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand boot; and __fish_seen_subcommand_from healthcheck" -l timeout -d 'How long to wait for the answer; Kubernetes itself gives an exec probe one second' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand boot; and __fish_seen_subcommand_from healthcheck" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand boot; and __fish_seen_subcommand_from healthcheck" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand boot; and __fish_seen_subcommand_from healthcheck" -l ready -d 'Ask /readyz: can the node carry traffic?'
complete -c tailpod -n "__fish_tailpod_using_subcommand boot; and __fish_seen_subcommand_from healthcheck" -l live -d 'Ask /livez: does boot make progress?'
complete -c tailpod -n "__fish_tailpod_using_subcommand boot; and __fish_seen_subcommand_from healthcheck" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand boot; and __fish_seen_subcommand_from healthcheck" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand boot; and __fish_seen_subcommand_from healthcheck" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand boot; and __fish_seen_subcommand_from healthcheck" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -l config -d 'Config file, or `kube:NAMESPACE/NAME` for a Secret, in the format of k8s-proxy; followed, and flags win over it' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -l mode -d 'Whether callers become Kubernetes users here; `auth` unless the config says otherwise' -r -f -a "auth\t'The peer\'s identity becomes impersonation headers, sent with our own credentials'
noauth\t'Callers bring their own credentials; none are added'"
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -l listen -d 'Address to listen on; by default port 443 wherever tailnet peers arrive' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -l tls -d 'Where certificates come from; `off` is the default with `--proxy-protocol`' -r -f -a "tailscale\t'Certificates that tailscaled gets for the node\'s names'
files\t'The files `--tls-cert` and `--tls-key`'
off\t'None: tailscaled or WireGuard has encrypted already'"
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -l tls-cert -d 'Certificate chain for `--tls files`, PEM; read again when it changes' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -l tls-key -d 'Private key for `--tls files`, PEM' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -l kubeconfig -d 'Kubeconfig that leads to the cluster; without it the Pod\'s service account, then kubectl\'s rules' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -l context -d 'Context of the kubeconfig, if not the current one' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -l socket -d 'tailscaled\'s socket; by default TS_SOCKET' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -l service -d 'Tailscale Service that tailscaled shall serve, with us behind it, and advertise' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -l local-addr -d 'Serve health and metrics there' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -l proxy-protocol -d 'Expect a PROXY protocol header (v2) from tailscaled on every connection; listens on 127.0.0.1:80 by default. Implied by `--service`, and by `--config` unless `--tls` names certificates. Every process in the same network namespace can write such a header, so each is trusted to say who calls'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -l service-grants -d 'Also count grants whose destination is the Service, after those of the node'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -l deny-unrecorded-streams -d 'While recording is enforced, refuse every stream that cannot be recorded, port-forward included'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -l server-timing -d 'Tell in each answer how long identity and upstream took'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -f -a "explain" -d 'Show as whom a peer\'s requests are made, and by which rules'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -f -a "kubeconfig" -d 'Print a kubeconfig for this proxy'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -f -a "check" -d 'Check a config file of k8s-proxy'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and not __fish_seen_subcommand_from explain kubeconfig check classify" -f -a "classify" -d 'Say what requests are about, as kube-apiserver sees them'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from explain" -l peer -d 'Tailnet address of the peer, with or without a port' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from explain" -l whois -d 'File with whois\' answer as JSON, or `-` for standard input' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from explain" -l service -d 'Also count the grants whose destination is this Service, as `--service-grants` does' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from explain" -l socket -d 'tailscaled\'s socket; by default TS_SOCKET' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from explain" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from explain" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from explain" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from explain" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from explain" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from kubeconfig" -l service -d 'Tailscale Service that leads to the proxy' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from kubeconfig" -l server -d 'Address of the proxy, instead of asking tailscaled' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from kubeconfig" -l name -d 'Name of cluster and context; by default the host name of the address' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from kubeconfig" -l socket -d 'tailscaled\'s socket; by default TS_SOCKET' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from kubeconfig" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from kubeconfig" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from kubeconfig" -l no-user -d 'For a proxy in noauth mode: leave the user out, since everybody brings their own credentials'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from kubeconfig" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from kubeconfig" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from kubeconfig" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from kubeconfig" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from check" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from check" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from check" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from check" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from check" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from classify" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from classify" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from classify" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from classify" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from classify" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand proxy; and __fish_seen_subcommand_from classify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -l socket -d 'tailscaled\'s socket, if not the one that TS_SOCKET names' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -l proxy-group -d 'Only TLS Secrets of this proxy group; where certificates are shared, that of POD_NAME' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -l cert-dir -d 'tailscaled\'s directory of certificates, if not `certs` in TS_STATE_DIR' -r -f -a "(__fish_complete_directories)"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -l serve-config -d 'A serve config to take names from, in place of tailscaled\'s' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -s o -l output -d 'How results look; `--json` is short for `--output json`' -r -f -a "table\t'For people'
json\t'One JSON document'
yaml\t'The same as YAML; what is not known is left out'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -l timeout -d 'Longest wait for tailscaled and the API server, or for one handshake, as a Go duration [default: 10s]' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -l kubeconfig -d 'Kubeconfig that leads to the cluster; without it the Pod\'s service account, then kubectl\'s rules' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -l context -d 'Context of the kubeconfig, if not the current one' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -s n -l namespace -d 'Namespace, if not that of the Pod or of the context' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -l secret -d 'The state Secret; by default the one that TS_KUBE_SECRET names, else the one named as POD_NAME' -r -f -a "(__fish_tailpod_secrets)"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -f -a "list" -d 'List names and their certificates'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -f -a "show" -d 'Show everything about one'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -f -a "budget" -d 'Show what is left of the authority\'s limits'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -f -a "verify" -d 'Compare what replicas serve with what is kept'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -f -a "issue" -d 'Have tailscaled get or renew one certificate'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -f -a "run" -d 'Have tailscaled get every certificate that is needed, once or for as long as this runs'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -f -a "check" -d 'Find out what keeps certificates from being issued'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and not __fish_seen_subcommand_from list show budget verify issue run check watch" -f -a "watch" -d 'Follow a serve config file: keep its certificates fresh, and have it served if asked to'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from list" -l crit-days -d 'Days before the end from which on a certificate is critical' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from list" -l socket -d 'tailscaled\'s socket, if not the one that TS_SOCKET names' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from list" -l proxy-group -d 'Only TLS Secrets of this proxy group; where certificates are shared, that of POD_NAME' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from list" -l cert-dir -d 'tailscaled\'s directory of certificates, if not `certs` in TS_STATE_DIR' -r -f -a "(__fish_complete_directories)"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from list" -l serve-config -d 'A serve config to take names from, in place of tailscaled\'s' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from list" -s o -l output -d 'How results look; `--json` is short for `--output json`' -r -f -a "table\t'For people'
json\t'One JSON document'
yaml\t'The same as YAML; what is not known is left out'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from list" -l timeout -d 'Longest wait for tailscaled and the API server, or for one handshake, as a Go duration [default: 10s]' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from list" -l kubeconfig -d 'Kubeconfig that leads to the cluster; without it the Pod\'s service account, then kubectl\'s rules' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from list" -l context -d 'Context of the kubeconfig, if not the current one' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from list" -s n -l namespace -d 'Namespace, if not that of the Pod or of the context' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from list" -l secret -d 'The state Secret; by default the one that TS_KUBE_SECRET names, else the one named as POD_NAME' -r -f -a "(__fish_tailpod_secrets)"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from list" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from list" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from list" -l exit-code -d 'Say by the exit code whether a certificate is worse than renewal-due'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from list" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from list" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from list" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from show" -l crit-days -d 'Days before the end from which on a certificate is critical' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from show" -l socket -d 'tailscaled\'s socket, if not the one that TS_SOCKET names' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from show" -l proxy-group -d 'Only TLS Secrets of this proxy group; where certificates are shared, that of POD_NAME' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from show" -l cert-dir -d 'tailscaled\'s directory of certificates, if not `certs` in TS_STATE_DIR' -r -f -a "(__fish_complete_directories)"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from show" -l serve-config -d 'A serve config to take names from, in place of tailscaled\'s' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from show" -s o -l output -d 'How results look; `--json` is short for `--output json`' -r -f -a "table\t'For people'
json\t'One JSON document'
yaml\t'The same as YAML; what is not known is left out'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from show" -l timeout -d 'Longest wait for tailscaled and the API server, or for one handshake, as a Go duration [default: 10s]' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from show" -l kubeconfig -d 'Kubeconfig that leads to the cluster; without it the Pod\'s service account, then kubectl\'s rules' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from show" -l context -d 'Context of the kubeconfig, if not the current one' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from show" -s n -l namespace -d 'Namespace, if not that of the Pod or of the context' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from show" -l secret -d 'The state Secret; by default the one that TS_KUBE_SECRET names, else the one named as POD_NAME' -r -f -a "(__fish_tailpod_secrets)"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from show" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from show" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from show" -l pem -d 'The certificate chain as well'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from show" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from show" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from show" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from budget" -l domain -d 'A name to add to those that are served or were ordered lately; may be given more than once' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from budget" -l socket -d 'tailscaled\'s socket, if not the one that TS_SOCKET names' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from budget" -l proxy-group -d 'Only TLS Secrets of this proxy group; where certificates are shared, that of POD_NAME' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from budget" -l cert-dir -d 'tailscaled\'s directory of certificates, if not `certs` in TS_STATE_DIR' -r -f -a "(__fish_complete_directories)"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from budget" -l serve-config -d 'A serve config to take names from, in place of tailscaled\'s' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from budget" -s o -l output -d 'How results look; `--json` is short for `--output json`' -r -f -a "table\t'For people'
json\t'One JSON document'
yaml\t'The same as YAML; what is not known is left out'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from budget" -l timeout -d 'Longest wait for tailscaled and the API server, or for one handshake, as a Go duration [default: 10s]' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from budget" -l kubeconfig -d 'Kubeconfig that leads to the cluster; without it the Pod\'s service account, then kubectl\'s rules' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from budget" -l context -d 'Context of the kubeconfig, if not the current one' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from budget" -s n -l namespace -d 'Namespace, if not that of the Pod or of the context' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from budget" -l secret -d 'The state Secret; by default the one that TS_KUBE_SECRET names, else the one named as POD_NAME' -r -f -a "(__fish_tailpod_secrets)"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from budget" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from budget" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from budget" -l exit-code -d 'End with 3 when a limit is used up, with 1 when the notes cannot be read'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from budget" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from budget" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from budget" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from budget" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from verify" -l address -d 'An address where it is served, in place of those that tailscaled knows; may be given more than once' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from verify" -l service -d 'A Kubernetes Service behind which it is served, in place of what tailscaled knows' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from verify" -l serial -d 'The serial number that ought to be served, in hex, in place of that of the kept certificate' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from verify" -l socket -d 'tailscaled\'s socket, if not the one that TS_SOCKET names' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from verify" -l proxy-group -d 'Only TLS Secrets of this proxy group; where certificates are shared, that of POD_NAME' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from verify" -l cert-dir -d 'tailscaled\'s directory of certificates, if not `certs` in TS_STATE_DIR' -r -f -a "(__fish_complete_directories)"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from verify" -l serve-config -d 'A serve config to take names from, in place of tailscaled\'s' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from verify" -s o -l output -d 'How results look; `--json` is short for `--output json`' -r -f -a "table\t'For people'
json\t'One JSON document'
yaml\t'The same as YAML; what is not known is left out'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from verify" -l timeout -d 'Longest wait for tailscaled and the API server, or for one handshake, as a Go duration [default: 10s]' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from verify" -l kubeconfig -d 'Kubeconfig that leads to the cluster; without it the Pod\'s service account, then kubectl\'s rules' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from verify" -l context -d 'Context of the kubeconfig, if not the current one' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from verify" -s n -l namespace -d 'Namespace, if not that of the Pod or of the context' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from verify" -l secret -d 'The state Secret; by default the one that TS_KUBE_SECRET names, else the one named as POD_NAME' -r -f -a "(__fish_tailpod_secrets)"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from verify" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from verify" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from verify" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from verify" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from verify" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from issue" -l min-validity -d 'Renew what is valid for less than this, as a Go duration [default: 0s]' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from issue" -l write-cert -d 'Write the chain to FILE' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from issue" -l write-key -d 'Write the private key to FILE, for its owner alone' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from issue" -l socket -d 'tailscaled\'s socket, if not the one that TS_SOCKET names' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from issue" -l proxy-group -d 'Only TLS Secrets of this proxy group; where certificates are shared, that of POD_NAME' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from issue" -l cert-dir -d 'tailscaled\'s directory of certificates, if not `certs` in TS_STATE_DIR' -r -f -a "(__fish_complete_directories)"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from issue" -l serve-config -d 'A serve config to take names from, in place of tailscaled\'s' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from issue" -s o -l output -d 'How results look; `--json` is short for `--output json`' -r -f -a "table\t'For people'
json\t'One JSON document'
yaml\t'The same as YAML; what is not known is left out'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from issue" -l timeout -d 'Longest wait for tailscaled and the API server, or for one handshake, as a Go duration [default: 10s]' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from issue" -l kubeconfig -d 'Kubeconfig that leads to the cluster; without it the Pod\'s service account, then kubectl\'s rules' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from issue" -l context -d 'Context of the kubeconfig, if not the current one' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from issue" -s n -l namespace -d 'Namespace, if not that of the Pod or of the context' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from issue" -l secret -d 'The state Secret; by default the one that TS_KUBE_SECRET names, else the one named as POD_NAME' -r -f -a "(__fish_tailpod_secrets)"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from issue" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from issue" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from issue" -l wait -d 'Wait until the tailnet allows the name'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from issue" -l force -d 'Ask although earlier failures say to wait'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from issue" -l dry-run -d 'Make all checks and ask nobody for a certificate'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from issue" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from issue" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from issue" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from issue" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -l domain -d 'A name to ask for, in place of those that are served; may be repeated' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -l wait-allowed -d 'How long --once waits for a name that the tailnet does not allow, as a Go duration [default: 2m]' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -l backoff -d 'How delays grow with failures' -r -f -a "steps\t'1 minute, 10, 100, then daily'
exponential\t'1 minute, doubling up to a day'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -l lease-duration -d 'How long a replica that died is respected as the writer, where TAILPOD_CERT_WRITER is `lease`; a Go duration' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -l metrics-addr -d 'Serve metrics there, as `/metrics`, with --forever' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -l crit-days -d 'Days before the end from which on a certificate is critical' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -l socket -d 'tailscaled\'s socket, if not the one that TS_SOCKET names' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -l proxy-group -d 'Only TLS Secrets of this proxy group; where certificates are shared, that of POD_NAME' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -l cert-dir -d 'tailscaled\'s directory of certificates, if not `certs` in TS_STATE_DIR' -r -f -a "(__fish_complete_directories)"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -l serve-config -d 'A serve config to take names from, in place of tailscaled\'s' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -s o -l output -d 'How results look; `--json` is short for `--output json`' -r -f -a "table\t'For people'
json\t'One JSON document'
yaml\t'The same as YAML; what is not known is left out'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -l timeout -d 'Longest wait for tailscaled and the API server, or for one handshake, as a Go duration [default: 10s]' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -l kubeconfig -d 'Kubeconfig that leads to the cluster; without it the Pod\'s service account, then kubectl\'s rules' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -l context -d 'Context of the kubeconfig, if not the current one' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -s n -l namespace -d 'Namespace, if not that of the Pod or of the context' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -l secret -d 'The state Secret; by default the one that TS_KUBE_SECRET names, else the one named as POD_NAME' -r -f -a "(__fish_tailpod_secrets)"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -l once -d 'Ask for each name once and say how it stands; the default'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -l forever -d 'Keep them fresh until stopped'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -l include-node -d 'Names of the node itself too; always beside tailscaled before 1.100, which does not renew them'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -l no-lease -d 'Ask even if another replica holds the Lease'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from check" -l socket -d 'tailscaled\'s socket, if not the one that TS_SOCKET names' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from check" -l proxy-group -d 'Only TLS Secrets of this proxy group; where certificates are shared, that of POD_NAME' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from check" -l cert-dir -d 'tailscaled\'s directory of certificates, if not `certs` in TS_STATE_DIR' -r -f -a "(__fish_complete_directories)"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from check" -l serve-config -d 'A serve config to take names from, in place of tailscaled\'s' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from check" -s o -l output -d 'How results look; `--json` is short for `--output json`' -r -f -a "table\t'For people'
json\t'One JSON document'
yaml\t'The same as YAML; what is not known is left out'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from check" -l timeout -d 'Longest wait for tailscaled and the API server, or for one handshake, as a Go duration [default: 10s]' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from check" -l kubeconfig -d 'Kubeconfig that leads to the cluster; without it the Pod\'s service account, then kubectl\'s rules' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from check" -l context -d 'Context of the kubeconfig, if not the current one' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from check" -s n -l namespace -d 'Namespace, if not that of the Pod or of the context' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from check" -l secret -d 'The state Secret; by default the one that TS_KUBE_SECRET names, else the one named as POD_NAME' -r -f -a "(__fish_tailpod_secrets)"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from check" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from check" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from check" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from check" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from check" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from watch" -l cert-domain -d 'Stands for `${TS_CERT_DOMAIN}`, instead of the node\'s first certificate domain' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from watch" -l state-dir -d 'Where to remember attempts, so that a restart does not begin anew' -r -f -a "(__fish_complete_directories)"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from watch" -l socket -d 'tailscaled\'s socket, if not the one that TS_SOCKET names' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from watch" -l proxy-group -d 'Only TLS Secrets of this proxy group; where certificates are shared, that of POD_NAME' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from watch" -l cert-dir -d 'tailscaled\'s directory of certificates, if not `certs` in TS_STATE_DIR' -r -f -a "(__fish_complete_directories)"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from watch" -l serve-config -d 'A serve config to take names from, in place of tailscaled\'s' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from watch" -s o -l output -d 'How results look; `--json` is short for `--output json`' -r -f -a "table\t'For people'
json\t'One JSON document'
yaml\t'The same as YAML; what is not known is left out'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from watch" -l timeout -d 'Longest wait for tailscaled and the API server, or for one handshake, as a Go duration [default: 10s]' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from watch" -l kubeconfig -d 'Kubeconfig that leads to the cluster; without it the Pod\'s service account, then kubectl\'s rules' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from watch" -l context -d 'Context of the kubeconfig, if not the current one' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from watch" -s n -l namespace -d 'Namespace, if not that of the Pod or of the context' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from watch" -l secret -d 'The state Secret; by default the one that TS_KUBE_SECRET names, else the one named as POD_NAME' -r -f -a "(__fish_tailpod_secrets)"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from watch" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from watch" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from watch" -l apply -d 'Have tailscaled serve it'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from watch" -l advertise-without-cert -d 'Advertise a Service that listens on 443 only before there is a certificate for it'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from watch" -l own-all-services -d 'Withdraw every advertised Service that is not in the file, whoever advertised it'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from watch" -l include-node -d 'Count the names of the node itself, not only those of its Services; always beside tailscaled before 1.100, which does not keep them fresh'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from watch" -l strict -d 'End with the first file that cannot be read or applied'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from watch" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from watch" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from watch" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand certs; and __fish_seen_subcommand_from watch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and not __fish_seen_subcommand_from request wait clear" -l kubeconfig -d 'Kubeconfig that leads to the cluster; without it the Pod\'s service account, then kubectl\'s rules' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and not __fish_seen_subcommand_from request wait clear" -l context -d 'Context of the kubeconfig, if not the current one' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and not __fish_seen_subcommand_from request wait clear" -s n -l namespace -d 'Namespace, if not that of the Pod or of the context' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and not __fish_seen_subcommand_from request wait clear" -l secret -d 'The state Secret; by default the one that TS_KUBE_SECRET names, else the one named as POD_NAME' -r -f -a "(__fish_tailpod_secrets)"
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and not __fish_seen_subcommand_from request wait clear" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and not __fish_seen_subcommand_from request wait clear" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and not __fish_seen_subcommand_from request wait clear" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and not __fish_seen_subcommand_from request wait clear" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and not __fish_seen_subcommand_from request wait clear" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and not __fish_seen_subcommand_from request wait clear" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and not __fish_seen_subcommand_from request wait clear" -f -a "request" -d 'Ask for a new auth key in place of one that failed'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and not __fish_seen_subcommand_from request wait clear" -f -a "wait" -d 'Return when an auth key appears that is not the old one'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and not __fish_seen_subcommand_from request wait clear" -f -a "clear" -d 'Remove the request and what was registered under the old key'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from request" -l key-file -d 'File that holds the old key and nothing else; `-` for standard input' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from request" -l config -d 'The node\'s tailscaled config with its AuthKey; of a directory, the file that boot would choose' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from request" -l timeout -d 'Longest wait, as a Go duration [default: 10m]' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from request" -l secret-key -d 'Key of the Secret in which the new key appears [default: authkey]' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from request" -l field-manager -d 'The field manager of what is written' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from request" -l kubeconfig -d 'Kubeconfig that leads to the cluster; without it the Pod\'s service account, then kubectl\'s rules' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from request" -l context -d 'Context of the kubeconfig, if not the current one' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from request" -s n -l namespace -d 'Namespace, if not that of the Pod or of the context' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from request" -l secret -d 'The state Secret; by default the one that TS_KUBE_SECRET names, else the one named as POD_NAME' -r -f -a "(__fish_tailpod_secrets)"
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from request" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from request" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from request" -l force -d 'Ask even without a key that failed, or once more'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from request" -l wait -d 'Go on as `wait` does, and return when the new key is there'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from request" -l clear -d 'Then remove the request and what was registered under the old key, as `clear --yes` does'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from request" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from request" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from request" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from request" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from wait" -l key-file -d 'File that holds the old key and nothing else; `-` for standard input' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from wait" -l config -d 'The node\'s tailscaled config with its AuthKey; of a directory, the file that boot would choose' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from wait" -l timeout -d 'Longest wait, as a Go duration [default: 10m]' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from wait" -l secret-key -d 'Key of the Secret in which the new key appears [default: authkey]' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from wait" -l field-manager -d 'The field manager of what is written' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from wait" -l kubeconfig -d 'Kubeconfig that leads to the cluster; without it the Pod\'s service account, then kubectl\'s rules' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from wait" -l context -d 'Context of the kubeconfig, if not the current one' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from wait" -s n -l namespace -d 'Namespace, if not that of the Pod or of the context' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from wait" -l secret -d 'The state Secret; by default the one that TS_KUBE_SECRET names, else the one named as POD_NAME' -r -f -a "(__fish_tailpod_secrets)"
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from wait" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from wait" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from wait" -l clear -d 'Then remove the request and what was registered under the old key, as `clear --yes` does'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from wait" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from wait" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from wait" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from wait" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from clear" -l field-manager -d 'The field manager of what is written' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from clear" -l kubeconfig -d 'Kubeconfig that leads to the cluster; without it the Pod\'s service account, then kubectl\'s rules' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from clear" -l context -d 'Context of the kubeconfig, if not the current one' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from clear" -s n -l namespace -d 'Namespace, if not that of the Pod or of the context' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from clear" -l secret -d 'The state Secret; by default the one that TS_KUBE_SECRET names, else the one named as POD_NAME' -r -f -a "(__fish_tailpod_secrets)"
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from clear" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from clear" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from clear" -l marker-only -d 'Remove only the request for a new key'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from clear" -s y -l yes -d 'Remove without asking'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from clear" -l dry-run -d 'Print the patch and send nothing'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from clear" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from clear" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from clear" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand authkey; and __fish_seen_subcommand_from clear" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and not __fish_seen_subcommand_from inspect diff watch repair" -l kubeconfig -d 'Kubeconfig that leads to the cluster; without it the Pod\'s service account, then kubectl\'s rules' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and not __fish_seen_subcommand_from inspect diff watch repair" -l context -d 'Context of the kubeconfig, if not the current one' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and not __fish_seen_subcommand_from inspect diff watch repair" -s n -l namespace -d 'Namespace, if not that of the Pod or of the context' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and not __fish_seen_subcommand_from inspect diff watch repair" -l secret -d 'The state Secret; by default the one that TS_KUBE_SECRET names, else the one named as POD_NAME' -r -f -a "(__fish_tailpod_secrets)"
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and not __fish_seen_subcommand_from inspect diff watch repair" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and not __fish_seen_subcommand_from inspect diff watch repair" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and not __fish_seen_subcommand_from inspect diff watch repair" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and not __fish_seen_subcommand_from inspect diff watch repair" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and not __fish_seen_subcommand_from inspect diff watch repair" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and not __fish_seen_subcommand_from inspect diff watch repair" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and not __fish_seen_subcommand_from inspect diff watch repair" -f -a "inspect" -d 'Show what it says about the node, and what is wrong with it'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and not __fish_seen_subcommand_from inspect diff watch repair" -f -a "diff" -d 'Compare it with another one, or with a saved one'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and not __fish_seen_subcommand_from inspect diff watch repair" -f -a "watch" -d 'Follow it: one line for each change'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and not __fish_seen_subcommand_from inspect diff watch repair" -f -a "repair" -d 'Mend what can be mended'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from inspect" -l daemon-version -d 'Judge the capability version by this tailscaled instead of the one at hand' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from inspect" -l reveal -d 'Write the value of one key, and nothing else' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from inspect" -l kubeconfig -d 'Kubeconfig that leads to the cluster; without it the Pod\'s service account, then kubectl\'s rules' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from inspect" -l context -d 'Context of the kubeconfig, if not the current one' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from inspect" -s n -l namespace -d 'Namespace, if not that of the Pod or of the context' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from inspect" -l secret -d 'The state Secret; by default the one that TS_KUBE_SECRET names, else the one named as POD_NAME' -r -f -a "(__fish_tailpod_secrets)"
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from inspect" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from inspect" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from inspect" -s y -l yes -d 'Reveal without asking, also into a pipe or a file'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from inspect" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from inspect" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from inspect" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from inspect" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from diff" -l kubeconfig -d 'Kubeconfig that leads to the cluster; without it the Pod\'s service account, then kubectl\'s rules' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from diff" -l context -d 'Context of the kubeconfig, if not the current one' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from diff" -s n -l namespace -d 'Namespace, if not that of the Pod or of the context' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from diff" -l secret -d 'The state Secret; by default the one that TS_KUBE_SECRET names, else the one named as POD_NAME' -r -f -a "(__fish_tailpod_secrets)"
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from diff" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from diff" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from diff" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from diff" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from diff" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from diff" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from watch" -l kubeconfig -d 'Kubeconfig that leads to the cluster; without it the Pod\'s service account, then kubectl\'s rules' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from watch" -l context -d 'Context of the kubeconfig, if not the current one' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from watch" -s n -l namespace -d 'Namespace, if not that of the Pod or of the context' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from watch" -l secret -d 'The state Secret; by default the one that TS_KUBE_SECRET names, else the one named as POD_NAME' -r -f -a "(__fish_tailpod_secrets)"
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from watch" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from watch" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from watch" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from watch" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from watch" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from watch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from repair" -l profile -d 'The profile to make current, where several could be' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from repair" -l save -d 'Where to save the Secret first; by default NAMESPACE-NAME-VERSION.json here' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from repair" -l daemon-version -d 'Judge the capability version by this tailscaled instead of the one at hand' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from repair" -l kubeconfig -d 'Kubeconfig that leads to the cluster; without it the Pod\'s service account, then kubectl\'s rules' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from repair" -l context -d 'Context of the kubeconfig, if not the current one' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from repair" -s n -l namespace -d 'Namespace, if not that of the Pod or of the context' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from repair" -l secret -d 'The state Secret; by default the one that TS_KUBE_SECRET names, else the one named as POD_NAME' -r -f -a "(__fish_tailpod_secrets)"
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from repair" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from repair" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from repair" -s y -l yes -d 'Apply the patch'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from repair" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from repair" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from repair" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from repair" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand doctor" -l only -d 'Only these checks: codes, or groups: env, api, rbac, clock, daemon, host, dns, memory, serve, certs' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand doctor" -l kubeconfig -d 'Kubeconfig that leads to the cluster; without it the Pod\'s service account, then kubectl\'s rules' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand doctor" -l context -d 'Context of the kubeconfig, if not the current one' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand doctor" -s n -l namespace -d 'Namespace, if not that of the Pod or of the context' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand doctor" -l secret -d 'The state Secret; by default the one that TS_KUBE_SECRET names, else the one named as POD_NAME' -r -f -a "(__fish_tailpod_secrets)"
complete -c tailpod -n "__fish_tailpod_using_subcommand doctor" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand doctor" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand doctor" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand doctor" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand doctor" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and not __fish_seen_subcommand_from control tailscaled tailscale in-pod" -l login-server -d 'The control server the real tailscaled logs in at' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and not __fish_seen_subcommand_from control tailscaled tailscale in-pod" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and not __fish_seen_subcommand_from control tailscaled tailscale in-pod" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and not __fish_seen_subcommand_from control tailscaled tailscale in-pod" -l with-tailscaled -d 'Use the real tailscaled and tailscale on PATH instead of the stand-ins'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and not __fish_seen_subcommand_from control tailscaled tailscale in-pod" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and not __fish_seen_subcommand_from control tailscaled tailscale in-pod" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and not __fish_seen_subcommand_from control tailscaled tailscale in-pod" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and not __fish_seen_subcommand_from control tailscaled tailscale in-pod" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and not __fish_seen_subcommand_from control tailscaled tailscale in-pod" -a "control" -d 'Ask the pretend control server of the Pod around this command for something'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and not __fish_seen_subcommand_from control tailscaled tailscale in-pod" -a "tailscaled" -d 'Play the tailscaled process'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and not __fish_seen_subcommand_from control tailscaled tailscale in-pod" -a "tailscale" -d 'Play the tailscale process'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and not __fish_seen_subcommand_from control tailscaled tailscale in-pod" -a "in-pod" -d 'Become a command as a Pod\'s first process is'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from control" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from control" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from control" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from control" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from control" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from control" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from tailscaled" -l link -d 'The sandbox\'s control socket' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from tailscaled" -l backend -d 'The sandbox\'s LocalAPI socket' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from tailscaled" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from tailscaled" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from tailscaled" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from tailscaled" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from tailscaled" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from tailscaled" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from tailscale" -l link -d 'The sandbox\'s control socket' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from tailscale" -l backend -d 'The sandbox\'s LocalAPI socket' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from tailscale" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from tailscale" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from tailscale" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from tailscale" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from tailscale" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from tailscale" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from in-pod" -l root -d 'The Pod\'s directory, to be laid over the machine\'s in a mount namespace' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from in-pod" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from in-pod" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from in-pod" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from in-pod" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from in-pod" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand sandbox; and __fish_seen_subcommand_from in-pod" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand install-links" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand install-links" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand install-links" -l force -d 'Replace files and links that belong to something else'
complete -c tailpod -n "__fish_tailpod_using_subcommand install-links" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand install-links" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand install-links" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand install-links" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and not __fish_seen_subcommand_from completions man all manifests" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and not __fish_seen_subcommand_from completions man all manifests" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and not __fish_seen_subcommand_from completions man all manifests" -l check -d 'Write nothing; fail and name the files that are missing or out of date'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and not __fish_seen_subcommand_from completions man all manifests" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and not __fish_seen_subcommand_from completions man all manifests" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and not __fish_seen_subcommand_from completions man all manifests" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and not __fish_seen_subcommand_from completions man all manifests" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and not __fish_seen_subcommand_from completions man all manifests" -f -a "completions" -d 'Completion scripts for bash, zsh, fish, elvish and PowerShell'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and not __fish_seen_subcommand_from completions man all manifests" -f -a "man" -d 'A man page for every command'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and not __fish_seen_subcommand_from completions man all manifests" -f -a "all" -d 'Everything, in a checkout: completions/, man/ and the tables in README.md'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and not __fish_seen_subcommand_from completions man all manifests" -f -a "manifests" -d 'Kubernetes manifests on standard output: the smallest Role, no privilege that is not needed'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from completions" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from completions" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from completions" -l check -d 'Write nothing; fail and name the files that are missing or out of date'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from completions" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from completions" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from completions" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from man" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from man" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from man" -l check -d 'Write nothing; fail and name the files that are missing or out of date'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from man" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from man" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from man" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from man" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from all" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from all" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from all" -l check -d 'Write nothing; fail and name the files that are missing or out of date'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from all" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from all" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from all" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from all" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from manifests" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from manifests" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from manifests" -l check -d 'Write nothing; fail and name the files that are missing or out of date'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from manifests" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from manifests" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from manifests" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from manifests" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from manifests" -f -a "boot" -d 'A node: service account, Role, Secret to fill in, and a StatefulSet or a sidecar'
complete -c tailpod -n "__fish_tailpod_using_subcommand generate; and __fish_seen_subcommand_from manifests" -f -a "proxy" -d 'The API server proxy: service account, RBAC, Secrets to fill in, Service, Deployment, and the grant'
complete -c tailpod -n "__fish_tailpod_using_subcommand complete; and not __fish_seen_subcommand_from secrets" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand complete; and not __fish_seen_subcommand_from secrets" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand complete; and not __fish_seen_subcommand_from secrets" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand complete; and not __fish_seen_subcommand_from secrets" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand complete; and not __fish_seen_subcommand_from secrets" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand complete; and not __fish_seen_subcommand_from secrets" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tailpod -n "__fish_tailpod_using_subcommand complete; and not __fish_seen_subcommand_from secrets" -f -a "secrets" -d 'The names of the namespace\'s Secrets'
complete -c tailpod -n "__fish_tailpod_using_subcommand complete; and __fish_seen_subcommand_from secrets" -l kubeconfig -d 'Kubeconfig that leads to the cluster; without it the Pod\'s service account, then kubectl\'s rules' -r -F
complete -c tailpod -n "__fish_tailpod_using_subcommand complete; and __fish_seen_subcommand_from secrets" -l context -d 'Context of the kubeconfig, if not the current one' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand complete; and __fish_seen_subcommand_from secrets" -s n -l namespace -d 'Namespace, if not that of the Pod or of the context' -r
complete -c tailpod -n "__fish_tailpod_using_subcommand complete; and __fish_seen_subcommand_from secrets" -l secret -d 'The state Secret; by default the one that TS_KUBE_SECRET names, else the one named as POD_NAME' -r -f -a "(__fish_tailpod_secrets)"
complete -c tailpod -n "__fish_tailpod_using_subcommand complete; and __fish_seen_subcommand_from secrets" -l color -d 'When to use colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Even through a pipe'
never\t'Never'"
complete -c tailpod -n "__fish_tailpod_using_subcommand complete; and __fish_seen_subcommand_from secrets" -l log-format -d 'How log lines look' -r -f -a "text\t'Lines for people; `boot` writes what containerboot writes'
json\t'One JSON object per line'"
complete -c tailpod -n "__fish_tailpod_using_subcommand complete; and __fish_seen_subcommand_from secrets" -l json -d 'Print results as JSON'
complete -c tailpod -n "__fish_tailpod_using_subcommand complete; and __fish_seen_subcommand_from secrets" -s q -l quiet -d 'Say less: warnings and errors; twice: errors only'
complete -c tailpod -n "__fish_tailpod_using_subcommand complete; and __fish_seen_subcommand_from secrets" -s v -l verbose -d 'Say more; twice: everything'
complete -c tailpod -n "__fish_tailpod_using_subcommand complete; and __fish_seen_subcommand_from secrets" -s h -l help -d 'Print help (see more with \'--help\')'

function __fish_tailpod_secrets
    set -l words (commandline -opc)
    set -l flags
    for i in (seq 2 (count $words))
        if contains -- $words[$i] -n --namespace --kubeconfig --context
            set -a flags $words[$i] (string replace -r '^~/' "$HOME/" -- $words[(math $i + 1)])
        else if string match -qr -- '^--(namespace|kubeconfig|context)=' $words[$i]
            set -a flags (string replace '=~/' "=$HOME/" -- $words[$i])
        end
    end
    tailpod complete secrets $flags 2>/dev/null
end
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from inspect" -a "(__fish_tailpod_secrets)"
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from diff" -a "(__fish_tailpod_secrets)"
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from watch" -a "(__fish_tailpod_secrets)"
complete -c tailpod -n "__fish_tailpod_using_subcommand secret; and __fish_seen_subcommand_from repair" -a "(__fish_tailpod_secrets)"
