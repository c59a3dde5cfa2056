//go:build linux

// Command appliance boots the whole appliance on a developer's machine: our Debian package
// on Debian 13, in a container with its own network, which a virtual cable connects to this
// machine. It shows the Base's console, and says what to type in a second terminal.
//
//	appliance PACKAGE        runs until Ctrl-C
//	appliance PACKAGE demo   plays the whole story by itself; ends with 0 only if each
//	                         step succeeded
//
// The cable and its address are removed at the end. The Debian root stays for the next run
// (test/stage). The command needs root on Debian; scripts/appliance builds the package and
// runs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

const (
	// cable is the name of this machine's end of it.
	cable = "bitbox-base0"
	// stopTime is how long after its console a Base may go on while it stops.
	stopTime = 30 * time.Second
	// answerTime is how long the Base may take to say whether it runs.
	answerTime = 5 * time.Second
	// nodeSettings is a node on a network that is the container alone.
	nodeSettings = "program btcd\nnetwork regtest\ncache 16\nblock-every 20s\n"
	// endsSoon is said to somebody who ends it while it is made or boots.
	endsSoon = "The appliance ends when this step is done ..."
	// asItWas shows the cursor again, wraps lines and clears what a console has drawn
	// (ECMA-48; DECAWM and DECTCEM of the VT220).
	asItWas = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[2J\x1b[H"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "appliance:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	play := show
	switch {
	case len(args) == 2 && args[1] == "demo":
		play = demo
	case len(args) != 1:
		return errors.New("it takes a Debian package and, after it, nothing or demo; type: make appliance")
	}
	if os.Geteuid() != 0 {
		return errors.New("it makes a container and a network, so it needs root; type: make appliance")
	}
	return onStage(ctx, func(t *theatre) error {
		s, err := boot(ctx, t, args[0])
		if err != nil {
			return err
		}
		return play(ctx, s)
	})
}

// boot boots a container with a package in it.
func boot(ctx context.Context, t *theatre, deb string) (*stage.Stage, error) {
	stage.NeedRoot(t)
	defer context.AfterFunc(ctx, func() { fmt.Println("\n" + endsSoon) })()
	fmt.Println("Making a Debian with it (the first time this takes a minute or two) ...")
	s := stage.Install(t, stage.Config{Package: deb, OwnElectrum: true, Build: func(root string) error {
		return os.WriteFile(filepath.Join(root, settings.File), []byte(nodeSettings), 0o644)
	}})
	if err := s.JoinHost(cable); err != nil {
		return nil, err
	}
	begun := time.Now()
	s.Start()
	fmt.Printf("Booted in %.1f s.\n", time.Since(begun).Seconds())
	return s, ctx.Err()
}

// show shows the console until somebody ends it.
func show(ctx context.Context, s *stage.Stage) error {
	app := "./" + filepath.Join("build", "bitbox-app")
	fmt.Printf(`
The appliance runs. In a second terminal, type:

    %[1]s pair %[2]s
    %[1]s                  # a full screen
    %[1]s services
    %[1]s node blocks --follow
    %[1]s expose electrum --for 1h
    %[1]s log
    %[1]s lockdown

(%[1]s discover finds it too, unless this machine's firewall is against it.)
`, app, s.V4)
	if !term.IsTerminal(int(os.Stdin.Fd())) || !term.IsTerminal(int(os.Stdout.Fd())) {
		fmt.Println("\nThis is no terminal, so the Base's log is shown; its console needs one. Ctrl-C ends the appliance.")
		return attend(ctx, s, "journalctl", "--follow", "--boot", "--no-pager", "--output=cat", "--unit=bitbox-base-*")
	}
	fmt.Print("\nHere comes the Base's console: accept the number and compare the code in it. Ctrl-C ends the appliance.\nPress Enter. ")
	entered := make(chan struct{})
	go func() {
		defer close(entered)
		_, _ = fmt.Scanln() // what is typed does not matter
	}()
	select {
	case <-entered:
	case <-ctx.Done():
		return nil
	}
	return attend(ctx, s, "bitbox-base", "console")
}

// attend runs a command of the Base at this terminal until the context ends or the Base
// is switched off. When the Base restarts it is booted again, as a machine would be.
func attend(ctx context.Context, s *stage.Stage, argv ...string) error {
	for {
		err := attach(ctx, s, argv...)
		if ctx.Err() != nil || runs(s) { // the console takes Ctrl-C as a key, and ends
			return err
		}
		fmt.Println("The Base stops ...")
		switch stopped, reboots := s.Stopped(stopTime); {
		case !stopped:
			return err
		case !reboots:
			fmt.Println("The Base is switched off.")
			return nil
		}
		fmt.Println("The Base restarts.")
		s.AwaitReboot()
	}
}

// runs tells whether the Base goes on. One that stops says so, or stops answering.
func runs(s *stage.Stage) bool {
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	command, err := s.Command(ctx, "systemctl", "is-system-running")
	if err != nil {
		return false
	}
	state, _ := command.Output() // it fails for a system with failed units
	switch strings.TrimSpace(string(state)) {
	case "running", "degraded":
		return true
	}
	return false
}

// attach runs a command of the Base at this terminal, until it or the context ends, and
// leaves the terminal as it was.
func attach(ctx context.Context, s *stage.Stage, argv ...string) error {
	command, err := s.Command(ctx, argv...)
	if err != nil {
		return err
	}
	if before, err := term.GetState(int(os.Stdin.Fd())); err == nil {
		defer func() { _ = term.Restore(int(os.Stdin.Fd()), before) }() // a Base that stops gives its console no time to
		defer fmt.Print(asItWas)
	}
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.Env = append(command.Env, "TERM="+os.Getenv("TERM"))
	// Asked first, so that it leaves the terminal as it was.
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = 5 * time.Second
	if err := command.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	defer close(ended)
	go goOn(command.Process, ended)
	return command.Wait()
}

// goOn has nsenter go on until it has ended. A machine that stops sends SIGSTOP to all that
// is in it before it kills them (systemd-shutdown); nsenter stops with its command then,
// and would keep the dead machine waiting for it.
func goOn(nsenter *os.Process, ended <-chan struct{}) {
	for {
		select {
		case <-ended:
			return
		case <-time.After(500 * time.Millisecond):
			_ = nsenter.Signal(syscall.SIGCONT)
		}
	}
}
