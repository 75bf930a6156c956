// kubelet is the half of a kubelet that kube-apiserver streams to: exec, attach, port-forward and
// logs, with Kubernetes' own protocol code and, in place of a container engine, processes of this
// machine. A Node whose status points here and a Pod bound to it make the real kubectl work.
//
//	kubelet DIR
//
// A Pod's log is DIR/<namespace>_<pod>.log, which a test writes. Its main process, which `attach`
// reaches, is one shell for each session, started by DIR/main.sh. Commands run in DIR/<namespace>_<pod>,
// if that directory is there. A session's end is appended to DIR/ended: `exec|attach <pod> <how>`.
//
// When the port is open it prints one line of JSON with it on stdout.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// Nothing ends a session that is merely quiet.
const (
	idleTimeout     = 24 * time.Hour
	creationTimeout = remotecommand.DefaultStreamCreationTimeout
)

// v5 is not among them: the API server speaks it to its clients and translates.
var (
	commandProtocols = []string{
		remotecommand.StreamProtocolV4Name, remotecommand.StreamProtocolV3Name,
		remotecommand.StreamProtocolV2Name, remotecommand.StreamProtocolV1Name,
	}
	forwardProtocols = []string{portforward.ProtocolV1Name}
)

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	if len(os.Args) != 2 {
		log.Fatal("usage: kubelet DIR")
	}
	k := &kubelet{dir: os.Args[1]}

	mux := http.NewServeMux()
	for _, exec := range []string{"/exec/{ns}/{pod}/{container}", "/exec/{ns}/{pod}/{uid}/{container}"} {
		mux.HandleFunc(exec, k.exec)
	}
	mux.HandleFunc("/attach/{ns}/{pod}/{container}", k.attach)
	mux.HandleFunc("/portForward/{ns}/{pod}", k.portForward)
	mux.HandleFunc("/containerLogs/{ns}/{pod}/{container}", k.logs)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	json.NewEncoder(os.Stdout).Encode(map[string]int{"port": listener.Addr().(*net.TCPAddr).Port})
	server := &http.Server{
		Handler:      logged(mux),
		ConnContext:  connContext,
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, // no HTTP/2: streams are upgrades
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: []string{"http/1.1"}}
	log.Fatal(server.Serve(tls.NewListener(noticing{listener}, config)))
}

func logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log.Printf("%s %s upgrade=%q", r.Method, r.URL.Path, r.Header.Get("Upgrade"))
		next.ServeHTTP(w, r)
	})
}

type kubelet struct{ dir string }

func (k *kubelet) exec(w http.ResponseWriter, r *http.Request) {
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s := k.session("exec", r)
	remotecommand.ServeExec(w, r, s, s.pod, "", r.PathValue("container"), r.Form["command"], options,
		idleTimeout, creationTimeout, commandProtocols)
}

func (k *kubelet) attach(w http.ResponseWriter, r *http.Request) {
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s := k.session("attach", r)
	remotecommand.ServeAttach(w, r, s, s.pod, "", r.PathValue("container"), options,
		idleTimeout, creationTimeout, commandProtocols)
}

func (k *kubelet) portForward(w http.ResponseWriter, r *http.Request) {
	options, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	portforward.ServePortForward(w, r, forwarder{}, r.PathValue("pod"), "", options,
		idleTimeout, creationTimeout, forwardProtocols)
}

// forwarder takes a port of the Pod for one of this machine.
type forwarder struct{}

func (forwarder) PortForward(_ context.Context, _ string, _ string, port int32, stream io.ReadWriteCloser) error {
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	defer conn.Close()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		io.Copy(conn, stream)
		conn.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(stream, conn)
	stream.Close()
	<-sent
	return err
}

// logs answers with the file, and with what is added to it for as long as the client follows.
func (k *kubelet) logs(w http.ResponseWriter, r *http.Request) {
	file, err := os.Open(filepath.Join(k.dir, podName(r)+".log"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	defer file.Close()
	flush := http.NewResponseController(w).Flush
	w.Header().Set("Content-Type", "text/plain")
	for {
		n, err := io.Copy(w, file)
		if err != nil {
			return
		}
		if n > 0 {
			flush()
		}
		if r.URL.Query().Get("follow") != "true" {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func podName(r *http.Request) string { return r.PathValue("ns") + "_" + r.PathValue("pod") }

// noticing is a listener whose connections say when the other side has gone: after an upgrade the
// server no longer does, the protocol code stops reading at the client's farewell, and a process
// nobody talks to any more must end.
type noticing struct{ net.Listener }

func (l noticing) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		for established(conn.(*net.TCPConn)) {
			time.Sleep(50 * time.Millisecond)
		}
	}()
	return &noticed{conn, ctx}, nil
}

type noticed struct {
	net.Conn
	gone context.Context
}

func established(conn *net.TCPConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	var info *unix.TCPInfo
	failed := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO) })
	return failed == nil && err == nil && info.State == unix.BPF_TCP_ESTABLISHED
}

type goneKey struct{}

func connContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, goneKey{}, c.(*tls.Conn).NetConn().(*noticed).gone)
}

// certificate is trusted by nobody: the API server does not ask a kubelet for one it knows.
func certificate() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotAfter:     time.Now().AddDate(1, 0, 0),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		log.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
