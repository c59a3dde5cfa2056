//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// printed is the output of a command so far.
type printed struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case p.more <- struct{}{}:
	default:
	}
	return p.text.Write(b)
}

func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// await returns the first group of a pattern, once it matches.
func (p *printed) await(ctx context.Context, pattern string) (string, error) {
	compiled := regexp.MustCompile(pattern)
	for {
		if match := compiled.FindStringSubmatch(p.String()); match != nil {
			return match[len(match)-1], nil
		}
		select {
		case <-p.more:
		case <-ctx.Done():
			return "", errors.New("never printed: " + pattern + "\n" + p.String())
		}
	}
}

// side is one of the two commands of a pairing at a Base without a display.
type side struct {
	command *exec.Cmd
	out     printed
	errs    bytes.Buffer
	in      io.WriteCloser
	ended   chan error
}

func startSide(ts *testscript.TestScript, dir string, args ...string) *side {
	path, err := exec.LookPath("bitbox-app")
	ts.Check(err)
	s := &side{command: exec.Command(path, args...), ended: make(chan error, 1)}
	s.out.more = make(chan struct{}, 1)
	s.command.Dir = ts.Getenv("WORK")
	s.command.Env = []string{dirVariable + "=" + dir, "HOME=" + ts.Getenv("HOME")}
	s.command.Stdout, s.command.Stderr = &s.out, &s.errs
	s.in, err = s.command.StdinPipe()
	ts.Check(err)
	ts.Check(s.command.Start())
	go func() { s.ended <- s.command.Wait() }()
	return s
}

// letInCommand runs both sides of a pairing at the appliance, which has no display: `bitbox-app
// pair --words` with the directory DIR, and `bitbox-app pairing accept` with the present one. It
// reads and types what two people would. The output is in the files app.out, app.err, owner.out
// and owner.err.
//
//	letin DIR NAME ROLE [other-words|no]
//	! letin ...                nobody may be let in
func letInCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: letin DIR NAME ROLE [other-words|no]")
	}
	ctx, cancel := context.WithTimeout(context.Background(), scriptTime)
	defer cancel()
	app := startSide(ts, ts.MkAbs(args[0]), "pair", "--words", "--app-name", args[1], ts.Getenv("appliance"))
	number, err := app.out.await(ctx, `pairing accept (\d{6}) --role`)
	ts.Check(err)
	owner := startSide(ts, ts.Getenv(dirVariable), "pairing", "accept", number, "--role", args[2])
	waiting, ended := context.WithCancel(ctx)
	defer ended()
	go func() { // if it ends before the words, nothing waits for them
		err := <-owner.ended
		ended()
		owner.ended <- err
	}()
	words, err := app.out.await(waiting, `Words:  ([a-z-]+)\n`)
	if err != nil {
		ts.Fatalf("%v\nthe owner's App: %s", err, owner.errs.String())
	}
	_, err = owner.out.await(ctx, `(Type the six words)`)
	ts.Check(err)
	switch {
	case len(args) > 3 && args[3] == "other-words":
		words = "babab-babab-babab-babab-babab-babab"
	case len(args) > 3:
		words = ""
	default:
		words = strings.ToUpper(strings.ReplaceAll(words, "-", " "))
	}
	_, err = io.WriteString(owner.in, words+"\n")
	ts.Check(err)
	answer := "y\n"
	if len(args) > 3 {
		answer = "n\n"
		<-waiting.Done() // until the owner's App has said so
	} else {
		_, err = owner.out.await(ctx, `(The words match)`)
		ts.Check(err)
	}
	_, _ = io.WriteString(app.in, answer) // it may have ended
	var failed error
	for name, s := range map[string]*side{"app": app, "owner": owner} {
		select {
		case err := <-s.ended:
			failed = errors.Join(failed, err)
		case <-ctx.Done():
			_ = s.command.Process.Kill()
			failed = errors.Join(failed, ctx.Err(), <-s.ended)
		}
		ts.Check(os.WriteFile(ts.MkAbs(name+".out"), []byte(s.out.String()), 0o600))
		ts.Check(os.WriteFile(ts.MkAbs(name+".err"), s.errs.Bytes(), 0o600))
		ts.Logf("[%s stdout]\n%s[%s stderr]\n%s", name, s.out.String(), name, s.errs.String())
	}
	if (failed != nil) != neg {
		ts.Fatalf("the two ended with: %v", failed)
	}
}
