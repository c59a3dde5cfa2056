package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// The exit codes that the story meets: `bitbox-app help exit-codes`.
const (
	exitRevoked = 6
	exitRefused = 11
)

// story is where the demo stands.
type story struct {
	ctx      context.Context
	programs string // directory of the two programs
	dir      string // what is stored during the demo

	base     *process
	watching *process
}

func (s *story) end() error {
	var errs []error
	for _, p := range []*process{s.watching, s.base} {
		if p != nil {
			errs = append(errs, p.stop())
		}
	}
	return errors.Join(errs...)
}

func (s *story) program(name string) string { return filepath.Join(s.programs, name) }

// app returns the environment of one of the two Apps.
func (s *story) app(name string) []string {
	return []string{"BITBOX_APP_DIR=" + filepath.Join(s.dir, name)}
}

func (s *story) stateArgs() []string { return []string{"--state", filepath.Join(s.dir, "base")} }

// typed shows a command as a person would type it.
func typed(who, name string, args []string) {
	words := []string{name}
	for _, a := range args {
		if strings.ContainsAny(a, " ") {
			a = `"` + a + `"`
		}
		words = append(words, a)
	}
	show(who + " $ " + strings.Join(words, " "))
}

// do runs a command to its end and checks its exit code and that what it prints
// matches.
func (s *story) do(who string, environment []string, wantCode int, wantOutput string, name string, args ...string) error {
	typed(who, name, args)
	if name == "bitbox-base" {
		args = append(args, s.stateArgs()...)
	}
	command := exec.CommandContext(s.ctx, s.program(name), args...)
	command.Env = append(os.Environ(), environment...)
	out, err := command.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		show(strings.Repeat(" ", len(who)) + "   " + strings.TrimRight(line, "\n"))
	}
	code, err := exitCode(err)
	if err != nil {
		return fmt.Errorf("run %s: %w", name, err)
	}
	if code != wantCode {
		return fmt.Errorf("%s %s ended with %d, not %d", name, strings.Join(args, " "), code, wantCode)
	}
	if matched, err := regexp.Match("(?m)"+wantOutput, bytes.TrimSpace(out)); err != nil || !matched {
		return fmt.Errorf("%s %s did not print %q (%v)", name, strings.Join(args, " "), wantOutput, err)
	}
	return nil
}

func (s *story) laptop(wantCode int, wantOutput string, args ...string) error {
	return s.do("laptop", s.app("laptop"), wantCode, wantOutput, "bitbox-app", args...)
}

func (s *story) phone(wantCode int, wantOutput string, args ...string) error {
	return s.do("phone ", s.app("phone"), wantCode, wantOutput, "bitbox-app", args...)
}

func (s *story) start() (err error) {
	args := []string{"dev", "--listen", ":0", "--name", "Demo Base"}
	typed("base  ", "bitbox-base", args)
	if s.base, err = startProcess(s.ctx, "base   | ", nil, s.program("bitbox-base"), append(args, s.stateArgs()...)...); err != nil {
		return err
	}
	_, err = s.base.await(s.ctx, `this Base is ready`)
	return err
}

func (s *story) discover() error {
	return s.laptop(0, `^Demo Base +\S+ .*open$`, "discover")
}

func (s *story) pairOwner() error { return s.pair("laptop", "laptop", "owner") }

// pair plays both people: the one with the App, and the one at the Base.
func (s *story) pair(who, name, role string) error {
	args := []string{"pair", "--app-name", name}
	typed(who, "bitbox-app", args)
	app, err := startProcess(s.ctx, who+" | ", s.app(name), s.program("bitbox-app"), args...)
	if err != nil {
		return err
	}
	defer app.stop()
	number, err := app.await(s.ctx, `Request number:  (\d{3}) (\d{3})`)
	if err != nil {
		return err
	}
	// At the Base: its log shows the same number.
	if _, err := s.base.await(s.ctx, `an App asks to be paired.* numbers=`+number[0]+number[1]); err != nil {
		return err
	}
	accept := []string{"pairing", "accept", number[0] + number[1]}
	if role != "owner" {
		accept = append(accept, "--role", role)
	}
	if err := s.do("base  ", nil, 0, "", "bitbox-base", accept...); err != nil {
		return err
	}
	code, err := s.base.await(s.ctx, `does the App show exactly this code\?.* code="(\d{3} \d{3})"`)
	if err != nil {
		return err
	}
	if _, err := app.await(s.ctx, `Type the code that the Base shows: `); err != nil {
		return err
	}
	show(fmt.Sprintf("%s > %s (read at the Base, typed into the App)", who, code[0]))
	if _, err := fmt.Fprintln(app.stdin, code[0]); err != nil {
		return fmt.Errorf("type the code into the App: %w", err)
	}
	// The App compares, and says yes only if its own code is the same. Then the
	// Base is told so, too.
	if err := s.appHasConfirmed(); err != nil {
		return err
	}
	if err := s.do("base  ", nil, 0, "", "bitbox-base", "pairing", "confirm"); err != nil {
		return err
	}
	if _, err := app.await(s.ctx, `Paired with "Demo Base"\. This App is "`+name+`" there, with the role `+role+`\.`); err != nil {
		return err
	}
	if code, err := app.wait(s.ctx); err != nil || code != 0 {
		return fmt.Errorf("pairing the App ended with %d (%w)", code, err)
	}
	return nil
}

// appHasConfirmed waits until the Base has the App's yes.
func (s *story) appHasConfirmed() error {
	for {
		out, err := exec.CommandContext(s.ctx, s.program("bitbox-base"), append([]string{"pairing", "list"}, s.stateArgs()...)...).Output()
		if err != nil {
			return fmt.Errorf("list what goes on at the Base: %w", err)
		}
		if bytes.Contains(out, []byte("The App has confirmed")) {
			return nil
		}
		if !bytes.Contains(out, []byte("Confirm if the App shows the same code")) {
			return fmt.Errorf("the Base waits for no App: %s", out)
		}
	}
}

func (s *story) status() error {
	return s.laptop(0, `^This App +laptop \(owner\)$`, "status")
}

func (s *story) move() error {
	if err := s.base.stop(); err != nil {
		return err
	}
	if err := s.start(); err != nil {
		return err
	}
	return s.laptop(0, `^Name +Demo Base$`, "status")
}

func (s *story) pairViewer() (err error) {
	args := []string{"watch"}
	typed("laptop", "bitbox-app", args)
	if s.watching, err = startProcess(s.ctx, "laptop | ", s.app("laptop"), s.program("bitbox-app"), args...); err != nil {
		return err
	}
	if _, err := s.watching.await(s.ctx, `Watching\.`); err != nil {
		return err
	}
	if err := s.laptop(0, `^The pairing window is open`, "pairing", "open"); err != nil {
		return err
	}
	if _, err := s.watching.await(s.ctx, `The pairing window is open`); err != nil {
		return err
	}
	if err := s.pair("phone ", "phone", "viewer"); err != nil {
		return err
	}
	_, err = s.watching.await(s.ctx, `"phone" \(\w+\) was paired as viewer\.`)
	return err
}

func (s *story) viewer() error {
	if err := s.phone(0, `^This App +phone \(viewer\)$`, "status"); err != nil {
		return err
	}
	return s.phone(exitRefused, `the role of this App does not permit it`, "pairing", "open")
}

func (s *story) revoke() error {
	if err := s.laptop(0, `"phone" is cut off`, "apps", "revoke", "phone", "--yes"); err != nil {
		return err
	}
	if _, err := s.watching.await(s.ctx, `"phone" \(\w+\) was revoked\.`); err != nil {
		return err
	}
	return s.laptop(0, `laptop +owner`, "apps", "list")
}

func (s *story) refused() error {
	return s.phone(exitRevoked, `this App was revoked at the Base "Demo Base"`, "status")
}
