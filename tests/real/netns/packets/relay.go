package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
)

// relay listens on loopback in the network of a process and passes connections on to the same port of its own loopback:
// the lab's servers, as seen from a Pod.
func relay(args []string) {
	runtime.LockOSThread()
	here, err := os.Open("/proc/self/task/" + fmt.Sprint(syscall.Gettid()) + "/ns/net")
	must(err)
	there, err := os.Open("/proc/" + args[0] + "/ns/net")
	must(err)
	enter(there)
	var listeners []net.Listener
	for _, port := range args[1:] {
		listener, err := net.Listen("tcp", "127.0.0.1:"+port)
		must(err)
		listeners = append(listeners, listener)
	}
	enter(here)
	runtime.UnlockOSThread()
	for _, listener := range listeners {
		go func() {
			for {
				c, err := listener.Accept()
				must(err)
				go pass(c.(*net.TCPConn), listener.Addr().String())
			}
		}()
	}
	fmt.Println("ready")
	select {}
}

func enter(network *os.File) {
	const setns = 308 // on amd64
	number := uintptr(setns)
	if runtime.GOARCH == "arm64" {
		number = 268
	}
	if _, _, errno := syscall.RawSyscall(number, network.Fd(), syscall.CLONE_NEWNET, 0); errno != 0 {
		must(errno)
	}
}

func pass(from *net.TCPConn, addr string) {
	defer from.Close()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	to := c.(*net.TCPConn)
	defer to.Close()
	done := make(chan bool, 2)
	one := func(a, b *net.TCPConn) {
		io.Copy(a, b)
		a.CloseWrite()
		done <- true
	}
	go one(to, from)
	go one(from, to)
	<-done
	<-done
}
