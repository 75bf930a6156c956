package main

import (
	"crypto/tls"
	"encoding/json"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
)

// backend serves TLS: a watch that sends an event at once and another when it is told to, and upgraded streams, under
// paths that end in /down (it sends for ever) or /echo.
func backend(f *flag.FlagSet, args []string) any {
	certificate := f.String("cert", "", "`FILE`")
	key := f.String("key", "", "`FILE`")
	f.Parse(args)

	server, control := listen(), listen()
	json.NewEncoder(os.Stdout).Encode(map[string]int{
		"port": server.Addr().(*net.TCPAddr).Port,
		"tell": control.Addr().(*net.TCPAddr).Port,
	})
	w := &word{said: make(chan struct{})}
	go func() { log.Fatal(http.Serve(control, http.HandlerFunc(w.say))) }()
	handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			serveStream(rw, r)
			return
		}
		w.serveWatch(rw, r)
	})
	// No HTTP/2: upgrades do not exist there.
	upstream := &http.Server{Handler: handler, TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}
	log.Fatal(upstream.ServeTLS(server, *certificate, *key))
	return nil
}

// word is what everybody waits for.
type word struct {
	mu   sync.Mutex
	said chan struct{}
}

func (w *word) say(http.ResponseWriter, *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.said)
	w.said = make(chan struct{})
}

func (w *word) serveWatch(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	said := w.said
	w.mu.Unlock()
	flush := http.NewResponseController(rw).Flush
	rw.Header().Set("Content-Type", "application/json")
	io.WriteString(rw, `{"type":"ADDED","object":{"kind":"ConfigMap"}}`+"\n")
	flush()
	select {
	case <-r.Context().Done():
	case <-said:
		io.WriteString(rw, `{"type":"MODIFIED","object":{"kind":"ConfigMap"}}`+"\n")
		flush()
		<-r.Context().Done() // it stays open, as a watch does
	}
}

func serveStream(rw http.ResponseWriter, r *http.Request) {
	conn, buffered, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		log.Print(err)
		return
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
	if strings.HasSuffix(r.URL.Path, "/echo") {
		io.Copy(conn, buffered)
		return
	}
	block := make([]byte, 64<<10)
	for err == nil {
		_, err = conn.Write(block)
	}
}

func listen() net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	return l
}
