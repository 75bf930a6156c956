package main

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"tailscale.com/net/tsaddr"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// admin is the tests' side of control:
//
//	PUT    /keys/{key}[?once][&unapproved][&refuse=TEXT]  accept an auth key, or refuse it with TEXT
//	DELETE /keys/{key}                                    no longer accept it
//	GET    /nodes                                         the nodes, as JSON
//	POST   /nodes/{id}/rename?name=NAME                   new MagicDNS name
//	POST   /nodes/{id}/expire                             its node key has expired
//	POST   /nodes/{id}/approve                            what an administrator does
//	POST   /nodes/{id}/forget                             it was deleted: it needs a key again
//	POST   /nodes/{id}/self-changes?rate=N&seconds=N      N changes of the node itself per second
//	POST   /nodes/{id}/peer-changes?rate=N&seconds=N      N peers of POST /peers come or go per second; the last it hears
//	POST   /nodes/{id}/peer-gone?peer=ID                  the last that its session hears: a peer is gone
//	POST   /nodes/{id}/user?id=ID&login=NAME              the last that its session hears: what this user is called
//	POST   /login?url=URL                                 what a human does with a login URL
//	POST   /peers?count=N                                 N peers that exist in the netmap only
//	POST   /reject?status=N                               answer N to every node; 0 ends it
//	PUT    /grants                                        what every peer may do to every node: a capability map
//	POST   /nodes/{id}/tags[?tag=TAG]...                  its tags are these; without any it is its user's again
//	PUT    /challenges?url=URL                            ACME challenges of nodes go to this challtestsrv
//	PUT    /cert-domains[?name=NAME]...                   nodes may have certificates for these too, besides their own name
//	POST   /nodes/{id}/https[?off]                        the tailnet of this node has HTTPS, or not any more; see there
//	POST   /nodes/{id}/service                            it alone hosts the Service (service.go)
func (t *tailnet) admin() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /keys/{key}", t.putKey)
	mux.HandleFunc("DELETE /keys/{key}", t.deleteKey)
	mux.HandleFunc("GET /nodes", t.listNodes)
	mux.HandleFunc("POST /nodes/{id}/rename", t.onNode(func(n *tailcfg.Node, r *http.Request) {
		n.Name = r.FormValue("name") + "." + t.server.MagicDNSDomain + "."
	}))
	mux.HandleFunc("POST /nodes/{id}/expire", t.onNode(func(n *tailcfg.Node, _ *http.Request) {
		n.KeyExpiry = time.Now().Add(-time.Minute)
		t.forget(n.Key)
	}))
	mux.HandleFunc("POST /nodes/{id}/approve", t.onNode(func(n *tailcfg.Node, _ *http.Request) {
		n.MachineAuthorized = true
	}))
	mux.HandleFunc("POST /nodes/{id}/forget", t.onNode(func(n *tailcfg.Node, _ *http.Request) {
		t.forget(n.Key)
	}))
	mux.HandleFunc("POST /nodes/{id}/self-changes", t.selfChanges)
	mux.HandleFunc("POST /nodes/{id}/peer-changes", t.peerChanges)
	mux.HandleFunc("POST /nodes/{id}/peer-gone", t.onNode(func(n *tailcfg.Node, r *http.Request) {
		// The in-memory server cannot delete a node; it says nothing more by itself after a message like this.
		peer, _ := strconv.ParseInt(r.FormValue("peer"), 10, 64)
		t.server.AddRawMapResponse(n.Key, &tailcfg.MapResponse{PeersRemoved: []tailcfg.NodeID{tailcfg.NodeID(peer)}})
	}))
	mux.HandleFunc("POST /nodes/{id}/user", t.onNode(func(n *tailcfg.Node, r *http.Request) {
		id, _ := strconv.ParseInt(r.FormValue("id"), 10, 64)
		t.server.AddRawMapResponse(n.Key, &tailcfg.MapResponse{UserProfiles: []tailcfg.UserProfile{
			{ID: tailcfg.UserID(id), LoginName: r.FormValue("login")},
		}})
	}))
	mux.HandleFunc("POST /login", t.login)
	mux.HandleFunc("POST /peers", t.addPeers)
	mux.HandleFunc("POST /reject", t.setReject)
	mux.HandleFunc("PUT /grants", t.setGrants)
	mux.HandleFunc("POST /nodes/{id}/tags", t.onNode(func(n *tailcfg.Node, r *http.Request) {
		r.ParseForm()
		n.Tags = r.Form["tag"]
	}))
	mux.HandleFunc("POST /nodes/{id}/service", t.hostService)
	mux.HandleFunc("PUT /challenges", func(_ http.ResponseWriter, r *http.Request) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.challenges = r.FormValue("url")
	})
	mux.HandleFunc("PUT /cert-domains", func(_ http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		// What is there stays as it is: the server reads it under a lock of its own.
		t.server.DNSConfig = dnsConfig(r.Form["name"]...)
		t.server.AddDNSRecords() // none; this tells all nodes
	})
	mux.HandleFunc("POST /nodes/{id}/https", t.onNode(func(n *tailcfg.Node, r *http.Request) {
		// The in-memory server gives every node a certificate for its own name. Therefore this comes from us, and the
		// node hears nothing more by itself after it.
		dns := t.server.DNSConfig.Clone()
		dns.CertDomains = append(dns.CertDomains, n.Hostinfo.Hostname()+"."+t.server.MagicDNSDomain)
		r.ParseForm()
		if r.Form.Has("off") {
			dns.CertDomains = nil
		}
		t.server.AddRawMapResponse(n.Key, &tailcfg.MapResponse{DNSConfig: dns})
	}))
	return mux
}

func (t *tailnet) putKey(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keys[r.PathValue("key")] = authKey{
		once:       q.Has("once"),
		unapproved: q.Has("unapproved"),
		refuse:     q.Get("refuse"),
	}
}

func (t *tailnet) deleteKey(w http.ResponseWriter, r *http.Request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.keys, r.PathValue("key"))
}

// setGrants is heard by all nodes as a new packet filter, as a change of the policy file is.
func (t *tailnet) setGrants(w http.ResponseWriter, r *http.Request) {
	var grants tailcfg.PeerCapMap
	if err := json.NewDecoder(r.Body).Decode(&grants); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	t.server.SetGlobalAppCaps(grants)
}

func (t *tailnet) setReject(w http.ResponseWriter, r *http.Request) {
	status, err := strconv.Atoi(r.FormValue("status"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reject = status
}

func (t *tailnet) login(w http.ResponseWriter, r *http.Request) {
	if !t.server.CompleteAuth(r.FormValue("url")) {
		http.Error(w, "no such login", http.StatusNotFound)
	}
}

// onNode applies a change to every entry of a node and tells the tailnet. A node whose key was
// rotated has more than one entry in the in-memory server.
func (t *tailnet) onNode(change func(*tailcfg.Node, *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		found := false
		for _, n := range t.server.AllNodes() {
			if string(n.StableID) == r.PathValue("id") {
				found = true
				change(n, r)
				t.server.UpdateNode(n)
			}
		}
		if !found {
			http.Error(w, "no such node", http.StatusNotFound)
		}
	}
}

func (t *tailnet) forget(k key.NodePublic) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.admitted, k)
}

// settle brings an accepted node's entry in line with the key that admitted it.
func (t *tailnet) settle(k key.NodePublic, approved bool) {
	n := t.server.Node(k)
	if n == nil {
		return
	}
	n.MachineAuthorized = approved
	n.KeyExpiry = time.Time{} // a rotated node starts as a copy of its expired self
	t.server.UpdateNode(n)
}

// selfChanges answers when it is done, with the number of changes made.
func (t *tailnet) selfChanges(w http.ResponseWriter, r *http.Request) {
	rate, _ := strconv.Atoi(r.FormValue("rate"))
	seconds, _ := strconv.Atoi(r.FormValue("seconds"))
	if rate < 1 || seconds < 1 {
		http.Error(w, "want rate and seconds", http.StatusBadRequest)
		return
	}
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	sent := 0
	change := t.onNode(func(n *tailcfg.Node, _ *http.Request) {
		// Any difference makes the daemon report its own node; this one has no other effect.
		n.ComputedName = fmt.Sprintf("change-%d", sent)
	})
	for ; sent < rate*seconds; sent++ {
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
			change(w, r)
		}
	}
	fmt.Fprintln(w, sent)
}

// peerChanges tells one node of one other peer at a time, as the real control server does; the in-memory one tells of all
// of them each time, and 5,000 peers are then all that anybody has time for. Answers when done, with their number.
func (t *tailnet) peerChanges(w http.ResponseWriter, r *http.Request) {
	rate, _ := strconv.Atoi(r.FormValue("rate"))
	seconds, _ := strconv.Atoi(r.FormValue("seconds"))
	var self *tailcfg.Node
	var peers []*tailcfg.Node
	for _, n := range t.server.AllNodes() {
		switch {
		case strings.HasPrefix(string(n.StableID), "nPEER"):
			peers = append(peers, n)
		case string(n.StableID) == r.PathValue("id"):
			self = n
		}
	}
	if rate < 1 || seconds < 1 || self == nil || len(peers) == 0 {
		http.Error(w, "want rate, seconds, a node and peers", http.StatusBadRequest)
		return
	}
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	sent := 0
	for ; sent < rate*seconds; sent++ {
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
			online := sent/len(peers)%2 != 0 // at first all of them are
			t.server.AddRawMapResponse(self.Key, &tailcfg.MapResponse{PeersChangedPatch: []*tailcfg.PeerChange{
				{NodeID: peers[sent%len(peers)].ID, Online: &online},
			}})
		}
	}
	fmt.Fprintln(w, sent)
}

func (t *tailnet) addPeers(w http.ResponseWriter, r *http.Request) {
	count, err := strconv.Atoi(r.FormValue("count"))
	if err != nil || count < 1 || count > 50_000 {
		http.Error(w, "want a count of 1 to 50000", http.StatusBadRequest)
		return
	}
	for i := range count {
		t.server.UpdateNode(t.peer(i))
	}
	log.Printf("added %d peers", count)
}

// peer is as large as an ordinary peer is on the wire. Its ids are out of the way of real nodes,
// which the in-memory server counts from 1.
func (t *tailnet) peer(i int) *tailcfg.Node {
	name := fmt.Sprintf("peer-%05d", i)
	ip := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 100<<24|100<<16+uint32(i))))
	addrs := []netip.Prefix{
		netip.PrefixFrom(ip, 32),
		netip.PrefixFrom(tsaddr.Tailscale4To6(ip), 128),
	}
	id := 1<<20 + i
	return &tailcfg.Node{
		ID:                tailcfg.NodeID(id),
		StableID:          tailcfg.StableNodeID(fmt.Sprintf("nPEER%08xCNTRL", id)),
		Name:              name + "." + t.server.MagicDNSDomain + ".",
		User:              1,
		Key:               key.NewNode().Public(),
		Machine:           key.NewMachine().Public(),
		DiscoKey:          key.NewDisco().Public(),
		MachineAuthorized: true,
		HomeDERP:          1,
		Cap:               tailcfg.CurrentCapabilityVersion,
		Addresses:         addrs,
		AllowedIPs:        addrs,
		Endpoints:         []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:41641")},
		Hostinfo:          (&tailcfg.Hostinfo{Hostname: name, OS: "linux"}).View(),
	}
}

// node is one line of GET /nodes.
type node struct {
	ID        string         `json:"id"`
	Name      string         `json:"name"`
	Hostname  string         `json:"hostname"`
	Addresses []netip.Prefix `json:"addresses"`
	Tags      []string       `json:"tags"`
	Routes    []netip.Prefix `json:"routes"`
	Expired   bool           `json:"expired"`
	Approved  bool           `json:"approved"`
}

// listNodes leaves out the peers that exist in the netmap only, and what a node was before its key
// was rotated.
func (t *tailnet) listNodes(w http.ResponseWriter, r *http.Request) {
	all := t.server.AllNodes()
	slices.SortStableFunc(all, func(a, b *tailcfg.Node) int { // those that are in, last
		return cmp.Compare(t.rank(a), t.rank(b))
	})
	newest := map[tailcfg.NodeID]*tailcfg.Node{}
	for _, n := range all {
		newest[n.ID] = n
	}
	nodes := []node{}
	for _, id := range slices.Sorted(maps.Keys(newest)) {
		n := newest[id]
		if strings.HasPrefix(string(n.StableID), "nPEER") {
			continue
		}
		nodes = append(nodes, node{
			ID:        string(n.StableID),
			Name:      n.Name,
			Hostname:  n.Hostinfo.Hostname(),
			Addresses: n.Addresses,
			Tags:      n.Hostinfo.RequestTags().AsSlice(),
			Routes:    slices.Clone(n.Hostinfo.RoutableIPs().AsSlice()),
			Expired:   !n.KeyExpiry.IsZero() && n.KeyExpiry.Before(time.Now()),
			Approved:  n.MachineAuthorized,
		})
	}
	json.NewEncoder(w).Encode(nodes)
}

func (t *tailnet) rank(n *tailcfg.Node) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !n.KeyExpiry.IsZero():
		return 0
	case !t.admitted[n.Key]:
		return 1
	}
	return 2
}

func typeName(v any) string { return fmt.Sprintf("%T", v) }
