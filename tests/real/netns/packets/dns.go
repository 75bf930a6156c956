package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
)

// dns answers from a file that it reads each time: `NAME ADDRESS...`, or `NAME fail` for SERVFAIL. Who asks again gets
// the addresses in another order. Each question is a line on stdout.
func dns(args []string) {
	socket, err := net.ListenPacket("udp", "127.0.0.1:53")
	must(err)
	fmt.Println("ready")
	buffer := make([]byte, 2048)
	for turn := 0; ; turn++ {
		n, from, err := socket.ReadFrom(buffer)
		if err != nil || n < 17 {
			continue
		}
		if answer := answerTo(buffer[:n], args[0], turn/2); answer != nil {
			socket.WriteTo(answer, from)
		}
	}
}

func answerTo(query []byte, file string, turn int) []byte {
	var labels []string
	at := 12
	for at < len(query) && query[at] != 0 {
		end := at + 1 + int(query[at])
		if end >= len(query) {
			return nil
		}
		labels = append(labels, string(query[at+1:end]))
		at = end
	}
	if at+5 > len(query) {
		return nil
	}
	question := query[12 : at+5]
	kind := binary.BigEndian.Uint16(query[at+1:])
	name := strings.ToLower(strings.Join(labels, "."))
	fmt.Println("asked", name, kind)

	code, ttl := uint16(3), uint32(1)
	var found []netip.Addr
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != name {
			continue
		}
		code = 0
		if fields[1] == "fail" {
			code = 2
			continue
		}
		for _, field := range fields[1:] {
			ip, err := netip.ParseAddr(field)
			if err == nil && (kind == 1 && ip.Is4() || kind == 28 && ip.Is6()) {
				found = append(found, ip)
			}
		}
	}
	answer := append([]byte{}, query[:2]...)
	answer = binary.BigEndian.AppendUint16(answer, 0x8580|code)
	answer = binary.BigEndian.AppendUint16(answer, 1)
	answer = binary.BigEndian.AppendUint16(answer, uint16(len(found)))
	answer = append(answer, 0, 0, 0, 0)
	answer = append(answer, question...)
	for i := range found {
		ip := found[(i+turn)%len(found)].AsSlice()
		answer = append(answer, 0xc0, 12)
		answer = binary.BigEndian.AppendUint16(answer, kind)
		answer = append(answer, 0, 1)
		answer = binary.BigEndian.AppendUint32(answer, ttl)
		answer = binary.BigEndian.AppendUint16(answer, uint16(len(ip)))
		answer = append(answer, ip...)
	}
	return answer
}
