// control is a tailnet on loopback for the tests: Tailscale's own in-memory control server
// (real key exchange, real netmaps), a DERP relay, a STUN server, and an HTTP endpoint through
// which a test says what control is to do next.
//
// The in-memory server knows one auth key for everybody and asks even known nodes for it. The
// real one has many keys, each with its own fate, and asks nobody who is already in. This program
// therefore ends the Noise session itself and puts that policy (policy.go) in front of the
// registration; everything else is passed on untouched.
//
// When all ports are open it prints one line of JSON with them on stdout.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"

	"golang.org/x/net/http2"
	"tailscale.com/control/controlhttp/controlhttpserver"
	"tailscale.com/derp/derpserver"
	"tailscale.com/net/stunserver"
	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/key"
)

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)

	derp, stun := serveDERP(), serveSTUN()
	control, admin := listen(), listen()
	url := "http://" + control.Addr().String()

	t := newTailnet(&testcontrol.Server{
		Logf:            log.Printf,
		ExplicitBaseURL: url,
		MagicDNSDomain:  "lab.ts.net",
		DNSConfig:       dnsConfig(),
		DERPMap:         derpMap(derp, stun),
		AllOnline:       true,
		// Everybody is asked to log in; the policy waives it for those with a key.
		RequireAuth: true,
	})
	go serve(control, t)
	tls := httptest.NewUnstartedServer(t)
	tls.StartTLS()

	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"control": url,
		// The same server again, for releases that dial port 443 when they come back within two minutes.
		"tls":   tls.URL,
		"ca":    string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tls.Certificate().Raw})),
		"admin": "http://" + admin.Addr().String(),
		"derp":  derp,
		"stun":  stun,
	})
	serve(admin, t.admin())
}

// ServeHTTP is what nodes reach: the server's public key, the upgrade to Noise, nothing else.
func (t *tailnet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if status := t.rejecting(); status != 0 {
		http.Error(w, "rejected by the test", status)
		return
	}
	switch r.URL.Path {
	case "/key":
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(tailcfg.OverTLSPublicKeyResponse{PublicKey: t.noise.Public()})
	case "/ts2021":
		t.serveNoise(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (t *tailnet) serveNoise(w http.ResponseWriter, r *http.Request) {
	conn, err := controlhttpserver.AcceptHTTP(r.Context(), w, r, t.noise, nil)
	if err != nil {
		log.Printf("noise: %v", err)
		return
	}
	defer conn.Close()
	ctx := machineContext{r.Context(), conn.Peer()}
	new(http2.Server).ServeConn(conn, &http2.ServeConnOpts{
		Context:    ctx,
		BaseConfig: &http.Server{Handler: http.HandlerFunc(t.serveMachine)},
	})
}

func (t *tailnet) serveMachine(w http.ResponseWriter, r *http.Request) {
	if status := t.rejecting(); status != 0 {
		http.Error(w, "rejected by the test", status)
		return
	}
	switch r.URL.Path {
	case "/machine/register":
		t.register(w, r)
	case "/machine/map", "/machine/set-dns", "/machine/update-health":
		t.server.ServeHTTP(w, r)
	default: // the in-memory server panics on what it does not know
		http.NotFound(w, r)
	}
}

// machineContext carries the machine key of a Noise session to the in-memory server, which looks
// for it under a type of its own that nobody else can name in source.
type machineContext struct {
	context.Context
	machine key.MachinePublic
}

func (c machineContext) Value(k any) any {
	if typeName(k) == "testcontrol.peerMachinePublicContextKey" {
		return c.machine
	}
	return c.Context.Value(k)
}

func serveDERP() (port int) {
	server := derpserver.New(key.NewNode(), func(string, ...any) {})
	h := httptest.NewUnstartedServer(derpserver.Handler(server))
	h.Config.ErrorLog = log.New(io.Discard, "", 0)
	h.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){} // no HTTP/2
	h.StartTLS()
	return h.Listener.Addr().(*net.TCPAddr).Port
}

func serveSTUN() (port int) {
	server := stunserver.New(context.Background())
	must(server.Listen("127.0.0.1:0"))
	go server.Serve()
	return server.LocalAddr().(*net.UDPAddr).Port
}

func derpMap(derp, stun int) *tailcfg.DERPMap {
	return &tailcfg.DERPMap{Regions: map[int]*tailcfg.DERPRegion{1: {
		RegionID:   1,
		RegionCode: "lab",
		RegionName: "lab",
		Nodes: []*tailcfg.DERPNode{{
			Name:             "1a",
			RegionID:         1,
			HostName:         "127.0.0.1",
			IPv4:             "127.0.0.1",
			IPv6:             "none",
			DERPPort:         derp,
			STUNPort:         stun,
			STUNTestIP:       "127.0.0.1",
			InsecureForTests: true,
		}},
	}}}
}

func listen() net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	return l
}

func serve(l net.Listener, h http.Handler) { log.Fatal(http.Serve(l, h)) }

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
