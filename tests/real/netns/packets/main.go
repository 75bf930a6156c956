// packets is who talks to whom in the network of a case.
//
//	packets serve NAME PORT...       (or ADDRESS:PORT) answers on TCP and UDP: its name, who asks, and then whatever it is sent
//	packets ask tcp|udp ADDR [COUNT] asks so often, each time from another port, and prints the answers
//	packets bulk ADDR BYTES          so many bytes there and back over one TCP connection
//	packets stay ADDR                one UDP socket, a datagram every 100 ms; prints who answers when that changes
//	packets sniff DEVICE             the MSS of each SYN that passes a device, and which way
//	packets load FLAGS ADDR...       see load.go
//	packets generation               when rules were changed, and how often (generation.go)
//	packets dns FILE                 a name server on 127.0.0.1:53 (dns.go)
//	packets relay PID PORT...        ports of this network's 127.0.0.1, in the network of a process (relay.go)
package main

import (
	"log"
	"os"
)

func main() {
	log.SetFlags(0)
	commands := map[string]func([]string){
		"serve": serve, "ask": ask, "bulk": bulk, "stay": stay, "sniff": sniff, "load": load, "generation": generation, "dns": dns, "relay": relay,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		log.Fatal("usage: packets serve|ask|bulk|stay|sniff|load|generation|dns|relay ...")
	}
	commands[os.Args[1]](os.Args[2:])
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
