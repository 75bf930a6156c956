package main

import (
	"bufio"
	"flag"
	"log"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

type measured struct {
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"p50_us"`
	P99       float64 `json:"p99_us"`
	CPU       float64 `json:"cpu_us"` // for each answer, of all -pids
	Answers   int     `json:"answers"`
	Failed    int     `json:"failed"`
}

func requests(f *flag.FlagSet, args []string) any {
	var t target
	var counted pids
	t.flags(f)
	f.Var(&counted, "pids", "processes whose CPU time counts, comma between them")
	connections := f.Int("connections", 1, "how many, each with one request at a time")
	pause := f.Duration("pause", 0, "between an answer and the next request")
	warmup := f.Duration("warmup", time.Second, "not counted")
	lasting := f.Duration("for", 5*time.Second, "counted")
	probe := f.Bool("probe", false, "only one request: is there an answer?")
	f.Parse(args)
	t.ready()
	if *probe {
		return t.probe()
	}

	var begun, over atomic.Bool
	var failed atomic.Int64
	latencies := make([][]time.Duration, *connections)
	var all, connected sync.WaitGroup
	connected.Add(*connections)
	for i := range *connections {
		all.Go(func() {
			conn, err := t.dial(i)
			connected.Done()
			if err != nil {
				failed.Add(1)
				log.Print(err)
				return
			}
			defer conn.Close()
			r, request := bufio.NewReaderSize(conn, 64<<10), t.get()
			mine := make([]time.Duration, 0, 1<<20 / *connections)
			for !over.Load() {
				start := time.Now()
				if _, err = conn.Write(request); err == nil {
					err = answer(r)
				}
				if err != nil {
					if failed.Add(1) <= 3 {
						log.Print(err)
					}
					break
				}
				if begun.Load() && !over.Load() {
					mine = append(mine, time.Since(start))
				}
				if *pause > 0 {
					time.Sleep(*pause)
				}
			}
			latencies[i] = mine
		})
	}
	connected.Wait()
	time.Sleep(*warmup)
	used, start := counted.cpu(), time.Now()
	begun.Store(true)
	time.Sleep(*lasting)
	over.Store(true)
	used, elapsed := counted.cpu()-used, time.Since(start)
	all.Wait()

	every := slices.Concat(latencies...)
	slices.Sort(every)
	n := len(every)
	if n == 0 {
		log.Fatal("load: not one answer")
	}
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
	return measured{
		PerSecond: float64(n) / elapsed.Seconds(),
		P50:       us(every[n/2]),
		P99:       us(every[n*99/100]),
		CPU:       us(used) / float64(n),
		Answers:   n,
		Failed:    int(failed.Load()),
	}
}

// probe is content with any answer that is not a refusal by the proxy.
func (t *target) probe() any {
	conn, err := t.dial(0)
	if err == nil {
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		_, err = conn.Write(t.get())
	}
	status := 0
	if err == nil {
		status, _, err = head(bufio.NewReaderSize(conn, 64<<10))
	}
	if err != nil || status != 200 {
		log.Fatalf("load: status %d, %v", status, err)
	}
	return map[string]int{"status": status}
}
