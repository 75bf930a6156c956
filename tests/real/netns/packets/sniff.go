package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"syscall"
)

// sniff prints for each TCP packet that begins a connection: in or out, syn or synack, the family, the MSS.
func sniff(args []string) {
	device, err := net.InterfaceByName(args[0])
	must(err)
	const every = syscall.ETH_P_ALL<<8&0xff00 | syscall.ETH_P_ALL>>8
	socket, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_DGRAM, every)
	must(err)
	must(syscall.Bind(socket, &syscall.SockaddrLinklayer{Protocol: every, Ifindex: device.Index}))
	fmt.Println("ready")
	buffer := make([]byte, 65536)
	for {
		n, from, err := syscall.Recvfrom(socket, buffer, 0)
		if err != nil {
			continue
		}
		way := "in"
		if from.(*syscall.SockaddrLinklayer).Pkttype == syscall.PACKET_OUTGOING {
			way = "out"
		}
		packet := buffer[:n]
		if n < 40 {
			continue
		}
		family, tcp := "v4", packet[20:]
		switch packet[0] >> 4 {
		case 4:
			if packet[9] != syscall.IPPROTO_TCP {
				continue
			}
			tcp = packet[int(packet[0]&15)*4:]
		case 6:
			if packet[6] != syscall.IPPROTO_TCP || n < 60 {
				continue
			}
			family, tcp = "v6", packet[40:]
		default:
			continue
		}
		flags := tcp[13]
		if flags&2 == 0 {
			continue
		}
		kind := "syn"
		if flags&16 != 0 {
			kind = "synack"
		}
		fmt.Println(way, kind, family, mss(tcp[20:int(tcp[12]>>4)*4]))
	}
}

func mss(options []byte) int {
	for len(options) > 1 && options[0] != 0 {
		switch {
		case options[0] == 1:
			options = options[1:]
		case options[0] == 2 && len(options) >= 4:
			return int(binary.BigEndian.Uint16(options[2:]))
		case options[1] < 2 || int(options[1]) > len(options):
			return 0
		default:
			options = options[options[1]:]
		}
	}
	return 0
}
