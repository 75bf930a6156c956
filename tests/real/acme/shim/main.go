// shim stands between tailscaled and Pebble: Pebble's answer to `finalize` has no Location header, which the ACME
// client in tailscaled follows. It is there at the authority that Tailscale uses.
//
//	shim CERTIFICATE KEY PEBBLE
//
// PEBBLE is host:port. When the port is open it prints one line of JSON with it on stdout.
package main

import (
	"crypto/tls"
	"encoding/json"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
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
			if id, ok := strings.CutPrefix(r.Request.URL.Path, "/finalize-order/"); ok && r.Header.Get("Location") == "" {
				r.Header.Set("Location", "https://"+r.Request.Host+"/my-order/"+id)
			}
			return nil
		},
		// Its certificate is made for a test, and this is loopback.
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	json.NewEncoder(os.Stdout).Encode(map[string]int{"port": listener.Addr().(*net.TCPAddr).Port})
	log.Fatal(http.ServeTLS(listener, proxy, os.Args[1], os.Args[2]))
}
