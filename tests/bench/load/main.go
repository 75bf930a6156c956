// load is what the proxy's benchmark measures with: clients that speak TLS or send a PROXY v2 header first, and the
// backend for watches and upgraded streams.
//
//	load requests ...     answers per second, latency, CPU time of the proxy for each
//	load watches ...      memory of the proxy for each idle watch, and whether all of them are still delivered
//	load stream ...       rate of one upgraded stream
//	load echo ...         many upgraded streams at once: every byte has to come back
//	load backend ...      the backend; prints its ports as one line of JSON
//
// Each prints one line of JSON. It uses no HTTP client of anybody's: what a request costs here is as little as can be,
// for it is taken from the same two cores.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 {
		log.Fatal("usage: load requests|watches|stream|echo|backend FLAGS")
	}
	command, ok := map[string]func(*flag.FlagSet, []string) any{
		"requests": requests,
		"watches":  watches,
		"stream":   stream,
		"echo":     echo,
		"backend":  backend,
	}[os.Args[1]]
	if !ok {
		log.Fatalf("load: no such command: %s", os.Args[1])
	}
	result := command(flag.NewFlagSet(os.Args[1], flag.ExitOnError), os.Args[2:])
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		log.Fatal(err)
	}
}

// pids are the processes whose CPU time counts; the memory is that of the first.
type pids []int

func (p *pids) String() string { return fmt.Sprint(*p) }

func (p *pids) Set(list string) error {
	for word := range strings.SplitSeq(list, ",") {
		pid, err := strconv.Atoi(word)
		if err != nil {
			return err
		}
		*p = append(*p, pid)
	}
	return nil
}

// cpu is their time on a processor until now, user and system.
func (p pids) cpu() time.Duration {
	const tick = 10 * time.Millisecond // of the kernel's accounts, on every architecture that matters
	var total time.Duration
	for _, pid := range p {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			log.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(stat), ") ") // the name may contain anything
		fields := strings.Fields(rest)
		for _, field := range fields[11:13] {
			ticks, _ := strconv.Atoi(field)
			total += time.Duration(ticks) * tick
		}
	}
	return total
}

// resident is the memory of the first, in bytes.
func (p pids) resident() int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p[0]))
	if err != nil {
		log.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.Atoi(strings.Fields(value)[0])
			return kb * 1024
		}
	}
	log.Fatal("load: no VmRSS")
	return 0
}
