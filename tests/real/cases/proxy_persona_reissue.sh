# The operator's repair of a proxy, whole: a dead key, the request for another in the Secret, the new key in the config,
# an orderly end without the old identity, a start that works.
# personas: k8s-proxy
# original: no, with POD_UID it looks the API server up by name only, and there is no cluster DNS here
. "$HERE/proxy.sh"
proxy_env=(POD_UID=uid-1)
proxy_mode=auth
proxy_account
make_secret proxy foreign=kept
service_secret
dead=$(dead_key)
echo "$dead" >"$CASE/proxy.authkey"
proxy_config
proxy_run
await 60 "the request for a new key" secret_is proxy reissue_authkey "$dead"
is pod_uid "$(secret proxy pod_uid)" uid-1
# The same key in another config is no answer.
IN_PLACE=1 proxy_config 'logLevel: "debug"'
sleep 1
running proxy || fail "it took the dead key again"
auth_key once >"$CASE/proxy.authkey"
IN_PLACE=1 proxy_config
exits proxy 0 30
for key in reissue_authkey device_id device_fqdn device_ips _machinekey _current-profile _profiles; do
  ! secret_has proxy "$key" || fail "$key is still in the Secret"
done
is foreign "$(secret proxy foreign)" kept
proxy_run
await_said proxy "is listening on"
await 10 "the device" secret_is proxy device_id "$(node_id_of proxy)"
