# The part of TS_SERVE_CONFIG in which the original and we agree: what a file makes of a node, to the letter.
# personas: containerboot boot
cat >"$CASE/config.json" <<'CONFIG'
{"tcp": {"443": {"https": true}, "8080": {"HTTP": true}, "5432": {"TCPForward": "localhost:15432"},
         "8443": {"TCPForward": "localhost:2", "TerminateTLS": "${TS_CERT_DOMAIN}", "ProxyProtocol": 2}},
 "Web": {"${TS_CERT_DOMAIN}:443": {"Handlers": {"/": {"Proxy": "http://127.0.0.1:3000"},
                                                "/old": {"Redirect": "308:https://${HOST}/new"}}},
         "${TS_CERT_DOMAIN}:8080": {"Handlers": {"/": {"Text": "at ${TS_CERT_DOMAIN}"}}}},
 "Services": {"svc:shop": {"TCP": {"443": {"HTTPS": true}},
                           "Web": {"shop.lab.ts.net:443": {"Handlers": {"/": {"Proxy": "http://10.0.0.7:8080/"}}}}}},
 "AllowFunnel": {"${TS_CERT_DOMAIN}:443": false}, "SomethingNew": {"x": 1}}
CONFIG
service_account node
start node "${up[@]}" "${in_cluster[@]}" TS_KUBE_SECRET=node TS_AUTHKEY="$(auth_key)" TS_HOSTNAME="$NS-node" \
  TS_SERVE_CONFIG="$CASE/config.json" TS_EXPERIMENTAL_SERVICE_AUTO_ADVERTISEMENT=false
ready node
domain=$(localapi node dns-config | jq -r '.CertDomains[0]')
await 20 "https_endpoint" secret_is node https_endpoint "$domain"
jq -S . >"$CASE/wanted.json" <<WANTED
{"TCP": {"443": {"HTTPS": true}, "8080": {"HTTP": true}, "5432": {"TCPForward": "localhost:15432"},
         "8443": {"TCPForward": "localhost:2", "TerminateTLS": "$domain", "ProxyProtocol": 2}},
 "Web": {"$domain:443": {"Handlers": {"/": {"Proxy": "http://127.0.0.1:3000"},
                                      "/old": {"Redirect": "308:https://\${HOST}/new"}}},
         "$domain:8080": {"Handlers": {"/": {"Text": "at $domain"}}}},
 "Services": {"svc:shop": {"TCP": {"443": {"HTTPS": true}},
                           "Web": {"shop.lab.ts.net:443": {"Handlers": {"/": {"Proxy": "http://10.0.0.7:8080/"}}}}}},
 "AllowFunnel": {"$domain:443": false}}
WANTED
localapi node serve-config | jq -S . | diff "$CASE/wanted.json" - || fail "tailscaled serves something else"
is "what is advertised" "$(localapi node prefs | jq -c .AdvertiseServices)" null
stop node
