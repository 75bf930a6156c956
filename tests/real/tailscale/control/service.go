package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"slices"

	"tailscale.com/net/tsaddr"
	"tailscale.com/tailcfg"
)

// The tailnet has one Service, which a test gives to the node that is to host it. The in-memory
// server knows none; to a node a Service is an address of its own that its host routes, the host's
// permission to answer there, a name, and a certificate for that name.
const (
	serviceName   = tailcfg.ServiceName("svc:kube")
	serviceDomain = "kube.lab.ts.net"
)

func serviceIPs() []netip.Addr {
	v4 := netip.MustParseAddr("100.99.0.1")
	return []netip.Addr{v4, tsaddr.Tailscale4To6(v4)}
}

func dnsConfig(certDomains ...string) *tailcfg.DNSConfig {
	config := &tailcfg.DNSConfig{Proxied: true, CertDomains: append([]string{serviceDomain}, certDomains...)}
	for _, ip := range serviceIPs() {
		config.ExtraRecords = append(config.ExtraRecords, tailcfg.DNSRecord{Name: serviceDomain, Value: ip.String()})
	}
	return config
}

// hostService takes it away from whoever had it: two nodes with one address are a riddle to the others.
func (t *tailnet) hostService(w http.ResponseWriter, r *http.Request) {
	mapping, err := json.Marshal(tailcfg.ServiceIPMappings{serviceName: serviceIPs()})
	must(err)
	var routes []netip.Prefix
	for _, ip := range serviceIPs() {
		routes = append(routes, netip.PrefixFrom(ip, ip.BitLen()))
	}
	nodes := t.server.AllNodes()
	isHost := func(n *tailcfg.Node) bool { return string(n.StableID) == r.PathValue("id") }
	if !slices.ContainsFunc(nodes, isHost) {
		http.Error(w, "no such node", http.StatusNotFound)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range nodes {
		switch {
		case isHost(n):
			t.server.SetNodeCapMap(n.Key, tailcfg.NodeCapMap{
				tailcfg.NodeAttrServiceHost: {tailcfg.RawMessage(mapping)},
			})
			t.server.SetSubnetRoutes(n.Key, routes)
		case t.hosted[n.Key]:
			t.server.SetNodeCapMap(n.Key, nil)
			t.server.SetSubnetRoutes(n.Key, nil)
		}
		t.hosted[n.Key] = isHost(n)
	}
}

// setDNS publishes a node's answer to an ACME challenge.
func (t *tailnet) setDNS(req *tailcfg.SetDNSRequest) error {
	t.mu.Lock()
	url := t.challenges
	t.mu.Unlock()
	if url == "" {
		return errors.New("no DNS server for challenges")
	}
	body, err := json.Marshal(map[string]string{"host": req.Name + ".", "value": req.Value})
	must(err)
	res, err := http.Post(url+"/set-txt", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	return res.Body.Close()
}
