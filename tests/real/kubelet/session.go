package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// session is one exec or attach: a process of this machine and the streams of a client.
type session struct {
	dir  string
	kind string
	pod  string
	gone context.Context // done when the API server's connection has ended
}

func (k *kubelet) session(kind string, r *http.Request) *session {
	return &session{k.dir, kind, podName(r), r.Context().Value(goneKey{}).(context.Context)}
}

// ExecInContainer implements remotecommand.Executor.
func (s *session) ExecInContainer(_ context.Context, _, _, _ string, command []string, in io.Reader,
	out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	return s.run(command, in, out, errOut, tty, resize)
}

// AttachContainer implements remotecommand.Attacher.
func (s *session) AttachContainer(_ context.Context, _, _, _ string, in io.Reader,
	out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	return s.run([]string{"sh", filepath.Join(s.dir, "main.sh")}, in, out, errOut, tty, resize)
}

func (s *session) run(command []string, in io.Reader, out, errOut io.WriteCloser, tty bool,
	resize <-chan remotecommand.TerminalSize) error {
	cmd := exec.Command(command[0], command[1:]...)
	// The tests' own environment is none of a container's business.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/tmp", "TERM=xterm"}
	if dir := filepath.Join(s.dir, s.pod); isDir(dir) {
		cmd.Dir = dir
	}
	// A group of its own, so that what it starts ends with it; and nothing outlives the tests.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}

	var err error
	if tty {
		err = runTerminal(s.gone, cmd, in, out, resize)
	} else {
		err = runPipes(s.gone, cmd, in, out, errOut)
	}
	how := "by itself"
	if s.gone.Err() != nil {
		how = "client gone"
	}
	s.note(how)
	log.Printf("%s in %s: %q ended %s: %v", s.kind, s.pod, command[0], how, err)

	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code := exit.ExitCode()
		if code < 0 { // by a signal: what a shell would say
			code = 128 + int(exit.Sys().(syscall.WaitStatus).Signal())
		}
		return status(code)
	}
	return err
}

func (s *session) note(how string) {
	file, err := os.OpenFile(filepath.Join(s.dir, "ended"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		log.Print(err)
		return
	}
	defer file.Close()
	fmt.Fprintf(file, "%s %s %s\n", s.kind, s.pod, how)
}

// status is the exit code in the form that the protocol code asks for (k8s.io/utils/exec.ExitError).
type status int

func (s status) Error() string   { return fmt.Sprintf("exit status %d", int(s)) }
func (s status) String() string  { return s.Error() }
func (s status) Exited() bool    { return true }
func (s status) ExitStatus() int { return int(s) }

func runPipes(gone context.Context, cmd *exec.Cmd, in io.Reader, out, errOut io.WriteCloser) error {
	if in != nil {
		// Not cmd.Stdin: Wait would wait for a client that never ends its input.
		pipe, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			io.Copy(pipe, in)
			pipe.Close()
		}()
	}
	if out != nil {
		cmd.Stdout = out
	}
	if errOut != nil {
		cmd.Stderr = errOut
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer context.AfterFunc(gone, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })()
	return cmd.Wait()
}

func runTerminal(gone context.Context, cmd *exec.Cmd, in io.Reader, out io.WriteCloser,
	resize <-chan remotecommand.TerminalSize) error {
	terminal, tty, err := openTerminal()
	if err != nil {
		return err
	}
	defer terminal.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr.Setctty = true
	err = cmd.Start()
	tty.Close()
	if err != nil {
		return err
	}
	defer context.AfterFunc(gone, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })()
	go func() {
		for size := range resize {
			unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Height, Col: size.Width})
		}
	}()
	if in != nil {
		go io.Copy(terminal, in)
	}
	if out != nil {
		io.Copy(out, terminal) // ends with EIO when the last process has left the terminal
	}
	return cmd.Wait()
}

// openTerminal makes a pseudo-terminal: its master side, and the one for the process.
func openTerminal() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
		return nil, nil, err
	}
	return master, slave, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
