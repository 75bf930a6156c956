// shim stands between tailscaled and Pebble, which lacks two things that tailscaled needs and that the authority that
// Tailscale uses has: a Location header in the answer to `finalize`, and patience with who answers a challenge again when
// the authorization is valid already. Of Pebble's authorizations one in a hundred is, at least.
//
//	shim CERTIFICATE KEY PEBBLE
//
// PEBBLE is host:port. When its ports are open it prints one line of JSON with them on stdout. At the second a test says
// what is to go wrong, and asks what went on (trouble.go).
package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"strconv"
	"strings"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: shim CERTIFICATE KEY PEBBLE")
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			// The Host stays: it is in the links that Pebble makes, and in what clients sign.
			r.Out.URL.Scheme, r.Out.URL.Host = "https", os.Args[3]
		},
		ModifyResponse: func(r *http.Response) error {
			if id, ok := strings.CutPrefix(r.Request.URL.Path, finalize); ok && r.Header.Get("Location") == "" {
				r.Header.Set("Location", "https://"+r.Request.Host+"/my-order/"+id)
			}
			if strings.HasPrefix(r.Request.URL.Path, "/chalZ/") && r.StatusCode == http.StatusBadRequest {
				return forgive(r)
			}
			return nil
		},
		// Its certificate is made for a test, and this is loopback.
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		// An authority that is gone answers nothing, not even 502.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:     log.New(io.Discard, "", 0),
	}
	listener, admin := listen(), listen()
	json.NewEncoder(os.Stdout).Encode(map[string]int{"port": port(listener), "admin": port(admin)})
	s := &shim{authority: proxy, orders: map[string]string{}, healed: make(chan struct{})}
	go func() { log.Fatal(http.Serve(admin, s.admin())) }()
	// Without HTTP/2 an answer that does not come is a connection that ends, as it is when the authority does.
	server := &http.Server{Handler: s, TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}
	log.Fatal(server.ServeTLS(listener, os.Args[1], os.Args[2]))
}

// forgive makes the refusal of a challenge that is valid already what it should be.
func forgive(r *http.Response) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if bytes.Contains(body, []byte("Cannot update challenge with status valid")) {
		r.StatusCode = http.StatusOK
		r.Header.Set("Content-Type", "application/json")
		if body, err = json.Marshal(map[string]string{
			"type": "dns-01", "status": "valid", "url": "https://" + r.Request.Host + r.Request.URL.Path,
		}); err != nil {
			return err
		}
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return nil
}

func listen() net.Listener {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	return listener
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }
