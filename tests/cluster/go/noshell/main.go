// Command noshell is all that is in an image without a shell: it waits or does a little work.
//
//	noshell pause        wait for SIGTERM or SIGINT; what the pause image runs
//	noshell args A B     print every argument on a line of its own
//	noshell cat          copy stdin to stdout
//	noshell env NAME     print a variable
//	noshell exit CODE    end with this exit code
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

func main() {
	if len(os.Args) < 2 {
		os.Exit(2)
	}
	args := os.Args[2:]
	switch os.Args[1] {
	case "pause":
		pause()
	case "args":
		for _, arg := range args {
			fmt.Println(arg)
		}
	case "cat":
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			os.Exit(1)
		}
	case "env":
		for _, name := range args {
			fmt.Println(os.Getenv(name))
		}
	case "exit":
		code, err := strconv.Atoi(args[0])
		if err != nil {
			os.Exit(2)
		}
		os.Exit(code)
	default:
		fmt.Fprintln(os.Stderr, "noshell: unknown command", os.Args[1])
		os.Exit(2)
	}
}

// pause waits for a signal to end. As process 1 it has to ask for the signals, and it reaps orphans.
func pause() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return
		}
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if err == syscall.EINTR {
				continue
			}
			if err != nil || pid <= 0 {
				break
			}
		}
	}
}
