package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const patience = 2 * time.Second

func host(a net.Addr) string {
	return netip.MustParseAddrPort(a.String()).Addr().Unmap().String()
}

func serve(args []string) {
	name := args[0]
	for _, port := range args[1:] {
		// One UDP socket for each family: an answer has to come from the address that was asked.
		addr, families := ":"+port, []string{"udp4", "udp6"}
		if strings.Contains(port, ":") {
			addr, families = port, []string{"udp"}
		}
		listener, err := net.Listen("tcp", addr)
		must(err)
		go func() {
			for {
				c, err := listener.Accept()
				must(err)
				go func() {
					defer c.Close()
					fmt.Fprintf(c, "%s %s\n", name, host(c.RemoteAddr()))
					io.Copy(c, c)
				}()
			}
		}()
		for _, family := range families {
			local, err := net.ResolveUDPAddr(family, addr)
			must(err)
			socket, err := net.ListenUDP(family, local)
			must(err)
			roomy(socket)
			for range 2 {
				go echo(name, socket)
			}
		}
	}
	fmt.Println("ready")
	select {}
}

// roomy: what is lost is to be lost on the way, not here because this machine had no time.
func roomy(socket *net.UDPConn) {
	raw, err := socket.SyscallConn()
	must(err)
	must(raw.Control(func(fd uintptr) {
		must(syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, 16<<20))
	}))
}

func echo(name string, socket *net.UDPConn) {
	buffer := make([]byte, 2048)
	for {
		n, from, err := socket.ReadFromUDPAddrPort(buffer)
		if err != nil {
			continue
		}
		answer := append([]byte(name+" "+from.Addr().Unmap().String()+"\n"), buffer[:n]...)
		socket.WriteToUDPAddrPort(answer, from)
	}
}

func ask(args []string) {
	count := 1
	if len(args) > 2 {
		count, _ = strconv.Atoi(args[2])
	}
	for i := range count {
		answer, err := once(args[0], args[1], fmt.Sprint("question ", i))
		must(err)
		fmt.Println(answer)
	}
}

// once says who answers, provided that the question comes back.
func once(network, addr, question string) (string, error) {
	c, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, question); err != nil {
		return "", err
	}
	in := bufio.NewReader(c)
	who, err := in.ReadString('\n')
	if err != nil {
		return "", err
	}
	back := make([]byte, len(question))
	if _, err := io.ReadFull(in, back); err != nil {
		return "", err
	}
	if string(back) != question {
		return "", fmt.Errorf("%s %s: asked %q, heard %q", network, addr, question, back)
	}
	return strings.TrimSuffix(who, "\n"), nil
}

func bulk(args []string) {
	size, err := strconv.Atoi(args[1])
	must(err)
	c, err := net.DialTimeout("tcp", args[0], patience)
	must(err)
	c.SetDeadline(time.Now().Add(10 * time.Second))
	go func() {
		c.Write(make([]byte, size))
		c.(*net.TCPConn).CloseWrite()
	}()
	in := bufio.NewReader(c)
	if _, err := in.ReadString('\n'); err != nil {
		log.Fatal(err)
	}
	back, err := io.Copy(io.Discard, in)
	if err != nil || back != int64(size) {
		log.Fatalf("%d of %d bytes came back: %v", back, size, err)
	}
	fmt.Println(back)
}

func stay(args []string) {
	c, err := net.Dial("udp", args[0])
	must(err)
	buffer, before := make([]byte, 2048), ""
	for tick := time.Tick(100 * time.Millisecond); ; <-tick {
		c.Write([]byte("still here"))
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		who := "nobody"
		if n, err := c.Read(buffer); err == nil {
			who, _, _ = strings.Cut(string(buffer[:n]), "\n")
		}
		if who != before {
			fmt.Println(who)
			before = who
		}
	}
}
