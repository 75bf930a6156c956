package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"flag"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// What happened to the packets: every one that was sent has to come back, on the connection that it was sent on.
type outcome struct {
	Connections int64 // at the same time, half of them TCP
	Opened      int64 // besides these, one after the other, each for one packet
	Refused     int64 // of the latter, those that came to nothing
	Broken      int64 // of the former, TCP streams that ended
	Sent        int64 // packets on the former
	Lost        int64 // of these, that did not come back
	Rate        int64 // packets in both directions per second
	LongestGap  int64 // between two answers on any stream, in ms
	FirstError  string
}

// load keeps connections under traffic until SIGTERM, and prints what became of it as one line of JSON.
//
//	packets load [-tcp N] [-udp N] [-rate PACKETS/S] [-new FLOWS/S] ADDR...
func load(args []string) {
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	tcp := flags.Int("tcp", 500, "TCP streams")
	udp := flags.Int("udp", 500, "UDP flows")
	rate := flags.Int("rate", 10000, "packets per second, there and back")
	fresh := flags.Int("new", 200, "new connections per second, TCP and UDP by turns, as far as there are any of them")
	must(flags.Parse(args))
	l := &loader{addrs: flags.Args(), end: make(chan struct{}), networks: []string{"tcp", "udp"}}
	switch {
	case *udp == 0:
		l.networks = []string{"tcp"}
	case *tcp == 0:
		l.networks = []string{"udp"}
	}
	all := *tcp + *udp
	// Each packet there is one back.
	pause := time.Duration(all) * time.Second * 2 / time.Duration(*rate)
	for i := range all {
		network := "tcp"
		if i >= *tcp {
			network = "udp"
		}
		c, err := net.DialTimeout(network, l.addrs[i%len(l.addrs)], patience)
		must(err)
		l.Connections++
		if network == "tcp" {
			l.running.Go(func() { l.stream(c, pause) })
		} else {
			l.running.Go(func() { l.flow(c, pause) })
		}
	}
	began := time.Now()
	l.running.Go(func() { l.open(*fresh) })
	os.Stdout.WriteString("ready\n")
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	took := time.Since(began)
	close(l.end)
	l.running.Wait()
	l.Rate = int64(float64(2*l.Sent) / took.Seconds())
	json.NewEncoder(os.Stdout).Encode(l.outcome)
}

type loader struct {
	outcome
	addrs    []string
	networks []string
	end      chan struct{}
	running  sync.WaitGroup
	mu       sync.Mutex
}

func (l *loader) failed(counter *int64, err error) {
	atomic.AddInt64(counter, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.FirstError == "" {
		l.FirstError = err.Error()
	}
}

// due waits for each turn, until all ends. What was missed because the machine had other things to do is made up for.
func (l *loader) due(pause time.Duration) func() bool {
	next := time.Now()
	return func() bool {
		next = next.Add(pause)
		select {
		case <-l.end:
			return false
		case <-time.After(time.Until(next)):
			return true
		}
	}
}

func (l *loader) gap(since time.Time) {
	ms := time.Since(since).Milliseconds()
	for {
		old := atomic.LoadInt64(&l.LongestGap)
		if ms <= old || atomic.CompareAndSwapInt64(&l.LongestGap, old, ms) {
			return
		}
	}
}

// stream sends and waits for it to come back: on TCP nothing is lost, but a stream can end, or hang.
func (l *loader) stream(c net.Conn, pause time.Duration) {
	defer c.Close()
	in := bufio.NewReader(c)
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := in.ReadString('\n'); err != nil {
		l.failed(&l.Broken, err)
		return
	}
	packet := make([]byte, 100)
	due := l.due(pause)
	for number := uint64(0); due(); number++ {
		binary.BigEndian.PutUint64(packet, number)
		began := time.Now()
		c.SetDeadline(began.Add(10 * time.Second))
		atomic.AddInt64(&l.Sent, 1)
		_, err := c.Write(packet)
		if err == nil {
			_, err = io.ReadFull(in, packet)
		}
		if err != nil || binary.BigEndian.Uint64(packet) != number {
			atomic.AddInt64(&l.Lost, 1)
			l.failed(&l.Broken, err)
			return
		}
		l.gap(began)
	}
}

// flow does not wait: what has not come back when all is over is lost.
func (l *loader) flow(c net.Conn, pause time.Duration) {
	defer c.Close()
	sent, back := int64(0), int64(0)
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		buffer := make([]byte, 2048)
		for {
			if _, err := c.Read(buffer); err == nil {
				atomic.AddInt64(&back, 1)
			} else if e, ok := err.(net.Error); ok && e.Timeout() {
				return
			} else {
				l.failed(new(int64), err) // refused: the packet does not come back, which is counted
			}
		}
	}()
	packet := make([]byte, 100)
	for due := l.due(pause); due(); sent++ {
		if _, err := c.Write(packet); err != nil {
			c.Write(packet) // the error was that of an earlier one
		}
	}
	for range 20 { // a second for those on the way
		if atomic.LoadInt64(&back) == sent {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	c.SetReadDeadline(time.Now())
	<-heard
	atomic.AddInt64(&l.Sent, sent)
	atomic.AddInt64(&l.Lost, sent-atomic.LoadInt64(&back))
}

// open makes new connections, some at the same time.
func (l *loader) open(rate int) {
	if rate == 0 {
		return
	}
	due := l.due(time.Second / time.Duration(rate))
	for i := 0; due(); i++ {
		l.running.Go(func() {
			network := l.networks[i%len(l.networks)]
			atomic.AddInt64(&l.Opened, 1)
			if _, err := once(network, l.addrs[i/len(l.networks)%len(l.addrs)], "new"); err != nil {
				l.failed(&l.Refused, err)
			}
		})
	}
}
