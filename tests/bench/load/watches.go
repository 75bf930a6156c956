package main

import (
	"bufio"
	"flag"
	"log"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

type watched struct {
	Open      int     `json:"open"`
	KBEach    float64 `json:"kb_each"`
	Resident  int     `json:"resident"` // bytes, with all of them open
	Delivered int     `json:"delivered"`
	Seconds   float64 `json:"seconds"` // until the last had its event
}

// atOnce is how many are opened at a time: a crowd of handshakes is not what is measured.
const atOnce = 16

func watches(f *flag.FlagSet, args []string) any {
	var t target
	var counted pids
	t.flags(f)
	f.Var(&counted, "pids", "the proxy, whose memory counts")
	count := f.Int("count", 1000, "how many")
	tell := f.String("tell", "", "`URL` that makes the backend send everybody an event")
	settle := f.Duration("settle", 2*time.Second, "before the memory is read")
	f.Parse(args)
	t.ready()

	before := counted.resident()
	var open, delivered atomic.Int64
	opening := make(chan struct{}, atOnce)
	var opened, all sync.WaitGroup
	opened.Add(*count)
	for i := range *count {
		opening <- struct{}{}
		all.Go(func() {
			r, conn := t.watch(i)
			<-opening
			opened.Done()
			if r == nil {
				return
			}
			defer conn()
			open.Add(1)
			if _, err := event(r); err == nil {
				delivered.Add(1)
			}
		})
	}
	opened.Wait()
	time.Sleep(*settle)
	after := counted.resident()

	start := time.Now()
	response, err := http.Post(*tell, "", nil)
	if err != nil {
		log.Fatal(err)
	}
	response.Body.Close()
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
	}
	return watched{
		Open:      int(open.Load()),
		KBEach:    float64(after-before) / 1000 / float64(*count),
		Resident:  after,
		Delivered: int(delivered.Load()),
		Seconds:   time.Since(start).Seconds(),
	}
}

// watch opens one and reads its first event; what is left is read from the same small buffer.
func (t *target) watch(number int) (*bufio.Reader, func() error) {
	conn, err := t.dial(number)
	if err == nil {
		_, err = conn.Write(t.get())
	}
	if err != nil {
		log.Print(err)
		return nil, nil
	}
	r := bufio.NewReaderSize(conn, 4<<10)
	status, _, err := head(r)
	if err == nil && status == 200 {
		_, err = event(r)
	}
	if err != nil || status != 200 {
		log.Printf("watch: status %d, %v", status, err)
		conn.Close()
		return nil, nil
	}
	return r, conn.Close
}

// event reads one chunk that holds one line.
func event(r *bufio.Reader) (string, error) {
	for range 2 { // the size of the chunk, and it
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		if line[0] == '{' {
			_, err = r.ReadString('\n')
			return line, err
		}
	}
	return "", errHead
}
