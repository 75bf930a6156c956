package main

import (
	"bytes"
	"flag"
	"io"
	"log"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

type streamed struct {
	MBPerSecond float64 `json:"mb_per_second"`
	CPU         float64 `json:"cpu_us_per_mb"`
}

// stream reads from one upgraded stream as fast as it comes.
func stream(f *flag.FlagSet, args []string) any {
	var t target
	var counted pids
	t.flags(f)
	f.Var(&counted, "pids", "processes whose CPU time counts, comma between them")
	warmup := f.Duration("warmup", 500*time.Millisecond, "not counted")
	lasting := f.Duration("for", 3*time.Second, "counted")
	f.Parse(args)
	t.ready()

	conn, err := t.dial(0)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	r, err := t.switched(conn)
	if err != nil {
		log.Fatal(err)
	}
	buffer := make([]byte, 256<<10)
	read := func(until time.Duration) (total int, elapsed time.Duration) {
		start := time.Now()
		for elapsed < until {
			n, err := r.Read(buffer)
			if err != nil {
				log.Fatal(err)
			}
			total += n
			elapsed = time.Since(start)
		}
		return total, elapsed
	}
	read(*warmup)
	used := counted.cpu()
	total, elapsed := read(*lasting)
	mb := float64(total) / 1e6
	return streamed{mb / elapsed.Seconds(), float64((counted.cpu() - used).Microseconds()) / mb}
}

type echoed struct {
	Streams int     `json:"streams"`
	Whole   int     `json:"whole"` // came back as they were sent
	Seconds float64 `json:"seconds"`
}

// echo has all streams open before the first byte is sent.
func echo(f *flag.FlagSet, args []string) any {
	var t target
	t.flags(f)
	count := f.Int("count", 200, "how many streams")
	size := f.Int("size", 1_000_000, "bytes on each, both ways")
	f.Parse(args)
	t.ready()

	var open, all sync.WaitGroup
	var whole atomic.Int64
	open.Add(*count)
	start := time.Now()
	for i := range *count {
		all.Go(func() {
			conn, err := t.dial(i)
			var r io.Reader
			if err == nil {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(60 * time.Second))
				r, err = t.switched(conn)
			}
			open.Done()
			if err != nil {
				log.Print(err)
				return
			}
			open.Wait()
			sent, got := make([]byte, *size), make([]byte, *size)
			random := rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)})
			random.Read(sent)
			go conn.Write(sent)
			if _, err := io.ReadFull(r, got); err != nil {
				log.Print(err)
				return
			}
			if bytes.Equal(sent, got) {
				whole.Add(1)
			}
		})
	}
	all.Wait()
	return echoed{*count, int(whole.Load()), time.Since(start).Seconds()}
}
