package main

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// generation watches the number that nftables counts its transactions with, until SIGTERM. It then prints when the first
// and the last of them were seen, in µs of the clock, and how many there were. iptables-nft counts too, legacy does not.
func generation([]string) {
	socket, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_NETFILTER)
	must(err)
	must(syscall.Bind(socket, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}))
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	first := struct{ First, Last, Transactions int64 }{}
	before := current(socket)
	start := before
	os.Stdout.WriteString("ready\n")
	for {
		select {
		case <-end:
			first.Transactions = int64(before - start)
			json.NewEncoder(os.Stdout).Encode(first)
			return
		case <-time.After(200 * time.Microsecond):
		}
		if now := current(socket); now != before {
			before = now
			first.Last = time.Now().UnixMicro()
			if first.First == 0 {
				first.First = first.Last
			}
		}
	}
}

func current(socket int) uint32 {
	const getgen = 10<<8 | 16 // NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
	request := make([]byte, 20)
	binary.NativeEndian.PutUint32(request, 20)
	binary.NativeEndian.PutUint16(request[4:], getgen)
	binary.NativeEndian.PutUint16(request[6:], syscall.NLM_F_REQUEST)
	must(syscall.Sendto(socket, request, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}))
	answer := make([]byte, 4096)
	n, _, err := syscall.Recvfrom(socket, answer, 0)
	must(err)
	for at := 20; at+8 <= n; {
		if binary.NativeEndian.Uint16(answer[at+2:]) == 1 { // NFTA_GEN_ID
			return binary.BigEndian.Uint32(answer[at+4:])
		}
		at += (int(binary.NativeEndian.Uint16(answer[at:])) + 3) &^ 3
	}
	panic("no generation")
}
