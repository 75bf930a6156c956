package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"
)

// target is the server under load, and how a connection to it begins.
type target struct {
	addr   string
	ca     string
	name   string
	source string
	from   string
	path   string
	tls    *tls.Config
}

func (t *target) flags(f *flag.FlagSet) {
	f.StringVar(&t.addr, "addr", "", "`HOST:PORT` to connect to")
	f.StringVar(&t.ca, "ca", "", "speak TLS and trust this `FILE`")
	f.StringVar(&t.name, "name", "localhost", "host `NAME`, in TLS and in the Host header")
	f.StringVar(&t.source, "source", "", "connect from this `ADDRESS` of this machine")
	f.StringVar(&t.from, "from", "", "say in a PROXY v2 header that we are this IPv4 `ADDRESS`")
	f.StringVar(&t.path, "path", "/", "request target")
}

func (t *target) ready() {
	if t.ca == "" {
		return
	}
	pem, err := os.ReadFile(t.ca)
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	t.tls = &tls.Config{RootCAs: roots, ServerName: t.name, NextProtos: []string{"http/1.1"}}
}

// dial makes the connection with this number ready for its first request.
func (t *target) dial(number int) (net.Conn, error) {
	dialer := net.Dialer{Timeout: 30 * time.Second}
	if t.source != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(t.source)}
	}
	conn, err := dialer.Dial("tcp", t.addr)
	if err != nil {
		return nil, err
	}
	if t.from != "" {
		if _, err := conn.Write(proxyHeader(netip.MustParseAddr(t.from), uint16(1024+number))); err != nil {
			return nil, err
		}
	}
	if t.tls != nil {
		secure := tls.Client(conn, t.tls)
		if err := secure.Handshake(); err != nil {
			return nil, err
		}
		return secure, nil
	}
	return conn, nil
}

// proxyHeader is what tailscaled sends ahead of a peer's connection (version 2, TCP over IPv4).
func proxyHeader(source netip.Addr, port uint16) []byte {
	header := []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c")
	header = append(header, source.AsSlice()...)
	header = append(header, 100, 64, 0, 2)
	header = binary.BigEndian.AppendUint16(header, port)
	return binary.BigEndian.AppendUint16(header, 80)
}

func (t *target) get() []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n", t.path, t.name)
}

func (t *target) upgrade() []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n\r\n",
		t.path, t.name)
}

var (
	errHead       = errors.New("not an answer that load understands")
	contentLength = []byte("content-length:")
)

// head reads one: its status, and the length of its body; -1 if it says none.
func head(r *bufio.Reader) (status, length int, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return 0, 0, err
	}
	if len(line) < 12 {
		return 0, 0, errHead
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, 0, errHead
	}
	length = -1
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return 0, 0, err
		}
		if len(line) <= 2 {
			return status, length, nil
		}
		if len(line) > len(contentLength) && bytes.EqualFold(line[:len(contentLength)], contentLength) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[len(contentLength):]))); err != nil {
				return 0, 0, errHead
			}
		}
	}
}

// answer reads a whole one of known length.
func answer(r *bufio.Reader) error {
	status, length, err := head(r)
	if err != nil {
		return err
	}
	if status != 200 || length < 0 {
		body, _ := r.Peek(min(r.Buffered(), 300))
		return fmt.Errorf("status %d, length %d: %s", status, length, body)
	}
	_, err = r.Discard(length)
	return err
}

// switched sends the upgrade and reads the answer to it.
func (t *target) switched(conn net.Conn) (*bufio.Reader, error) {
	if _, err := conn.Write(t.upgrade()); err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(conn, 64<<10)
	status, _, err := head(r)
	if err == nil && status != 101 {
		err = fmt.Errorf("status %d to an upgrade", status)
	}
	return r, err
}
