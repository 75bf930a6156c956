// tailscaled, to a containerboot that programs a firewall beside it: the LocalAPI alone. It moves no packets, for which a
// case has a network device named tailscale0; and it believes of its node and its peers what a file says, which a case
// changes while it runs.
//
//	STANDIN=FILE tailscaled --socket=PATH ...
//
// The file: {"self": {"ips": [...]}, "peers": [{"id": 5, "name": "web.lab.ts.net.", "ips": [...], "allowed": [...]}],
// "records": [{"Name": ..., "Value": ...}], "state": 6}. What differs from before is told as tailscaled tells it: the own
// node, peers that changed, peers that are gone.
package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	peerChanges   = 1 << 12 // ipn.NotifyPeerChanges
	initialState  = 1 << 1
	initialStatus = 1 << 14
	running       = 6
)

type peer struct {
	ID      int
	Name    string
	IPs     []netip.Addr
	Allowed []netip.Prefix
}

type belief struct {
	State   int
	Self    peer
	Peers   []peer
	Records []map[string]string
}

type daemon struct {
	mu      sync.Mutex
	now     belief
	watches map[chan any]int
	prefs   map[string]any
	serve   json.RawMessage
}

func main() {
	log.SetFlags(log.LstdFlags)
	socket := ""
	for _, arg := range os.Args[1:] {
		if value, ok := strings.CutPrefix(arg, "--socket="); ok {
			socket = value
		}
	}
	d := &daemon{watches: map[chan any]int{}, prefs: map[string]any{"WantRunning": true, "LoggedOut": false}, serve: json.RawMessage("{}")}
	now, err := read()
	if err != nil {
		log.Fatal(err)
	}
	d.now = now
	os.Remove(socket)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	go d.follow()
	go func() { log.Fatal(http.Serve(listener, http.HandlerFunc(d.serveHTTP))) }()
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
	os.Remove(socket)
}

func read() (belief, error) {
	b := belief{State: running}
	text, err := os.ReadFile(os.Getenv("STANDIN"))
	if err == nil {
		err = json.Unmarshal(text, &b)
	}
	b.Self.ID = 1
	b.Self.Name = cmp.Or(b.Self.Name, "pod.lab.ts.net.")
	return b, err
}

// follow looks at the file 50 times a second: a case is not kept waiting.
func (d *daemon) follow() {
	var seen string
	for range time.Tick(20 * time.Millisecond) {
		info, err := os.Stat(os.Getenv("STANDIN"))
		if err != nil {
			continue
		}
		this := fmt.Sprint(info.ModTime(), info.Size(), info.Sys().(*syscall.Stat_t).Ino)
		if this == seen {
			continue
		}
		seen = this
		if now, err := read(); err == nil {
			d.change(now)
		}
	}
}

func (d *daemon) change(now belief) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.now
	d.now = now
	message := map[string]any{}
	if before.State != now.State {
		message["State"] = now.State
	}
	if !reflect.DeepEqual(before.Self, now.Self) || !reflect.DeepEqual(before.Records, now.Records) {
		message["SelfChange"] = node(now.Self)
	}
	for watch := range d.watches { // what everybody is told
		if len(message) > 0 {
			watch <- message
		}
	}
	known := map[int]peer{}
	for _, p := range before.Peers {
		known[p.ID] = p
	}
	var changed []any
	for _, p := range now.Peers {
		if old, ok := known[p.ID]; !ok || !reflect.DeepEqual(old, p) {
			changed = append(changed, node(p))
		}
		delete(known, p.ID)
	}
	var removed []int
	for id := range known {
		removed = append(removed, id)
	}
	for watch, mask := range d.watches {
		if mask&peerChanges == 0 {
			continue
		}
		if len(changed) > 0 {
			watch <- map[string]any{"PeersChanged": changed}
		}
		if len(removed) > 0 {
			watch <- map[string]any{"PeersRemoved": removed}
		}
	}
}

func key(id int) string      { return fmt.Sprintf("nodekey:%064x", id+1) }
func stableID(id int) string { return fmt.Sprintf("n%08xCNTRL", id) }

func prefixes(p peer) (addresses, allowed []netip.Prefix) {
	for _, ip := range p.IPs {
		addresses = append(addresses, netip.PrefixFrom(ip, ip.BitLen()))
	}
	return addresses, append(addresses[:len(addresses):len(addresses)], p.Allowed...)
}

func node(p peer) any {
	addresses, allowed := prefixes(p)
	return map[string]any{"ID": p.ID, "StableID": stableID(p.ID), "Name": p.Name, "Key": key(p.ID), "Addresses": addresses,
		"AllowedIPs": allowed, "MachineAuthorized": true, "Created": "2026-01-01T00:00:00Z", "User": 1, "Hostinfo": map[string]any{}}
}

func status(p peer) any {
	_, allowed := prefixes(p)
	return map[string]any{"ID": stableID(p.ID), "NodeID": p.ID, "PublicKey": key(p.ID), "HostName": strings.Split(p.Name, ".")[0],
		"DNSName": p.Name, "OS": "linux", "UserID": 1, "TailscaleIPs": p.IPs, "AllowedIPs": allowed, "Online": true,
		"Created": "2026-01-01T00:00:00Z", "InNetworkMap": true, "InMagicSock": true, "InEngine": true}
}

func (d *daemon) status(peers bool) map[string]any {
	s := map[string]any{"Version": "1.102.5", "TUN": true, "BackendState": map[int]string{2: "NeedsLogin", running: "Running"}[d.now.State],
		"HaveNodeKey": true, "TailscaleIPs": d.now.Self.IPs, "Self": status(d.now.Self), "ExtraRecords": d.now.Records,
		"MagicDNSSuffix": "lab.ts.net", "User": map[string]any{"1": map[string]any{"ID": 1, "LoginName": "ann@lab"}}}
	if peers {
		all := map[string]any{}
		for _, p := range d.now.Peers {
			all[key(p.ID)] = status(p)
		}
		s["Peer"] = all
	}
	return s
}

func (d *daemon) serveHTTP(w http.ResponseWriter, r *http.Request) {
	what := strings.TrimPrefix(r.URL.Path, "/localapi/v0/")
	if what == "watch-ipn-bus" {
		d.watch(w, r)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var answer any = map[string]any{}
	switch what {
	case "status":
		answer = d.status(r.FormValue("peers") != "false")
	case "dns-config":
		answer = map[string]any{"ExtraRecords": d.now.Records}
	case "prefs":
		if r.Method == http.MethodPatch {
			json.NewDecoder(r.Body).Decode(&d.prefs)
		}
		answer = d.prefs
	case "serve-config":
		if r.Method == http.MethodPost {
			d.serve, _ = io.ReadAll(r.Body)
		}
		w.Header().Set("ETag", `"`+strconv.Itoa(len(d.serve))+`"`)
		answer = d.serve
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(answer)
}

func (d *daemon) watch(w http.ResponseWriter, r *http.Request) {
	mask, _ := strconv.Atoi(r.FormValue("mask"))
	messages := make(chan any, 10000)
	d.mu.Lock()
	first := map[string]any{"Version": "1.102.5", "SessionID": "standin"}
	if mask&initialState != 0 {
		first["State"] = d.now.State
	}
	if mask&initialStatus != 0 {
		first["InitialStatus"] = d.status(true)
	}
	messages <- first
	d.watches[messages] = mask
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.watches, messages)
		d.mu.Unlock()
	}()
	out := json.NewEncoder(w)
	for {
		select {
		case <-r.Context().Done():
			return
		case m := <-messages:
			if out.Encode(m) != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	}
}
