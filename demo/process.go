package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// endTime is how long a program may take to end when it is asked to.
const endTime = 10 * time.Second

// process is a program that runs while others do.
type process struct {
	command *exec.Cmd
	stdin   io.WriteCloser
	output  *output
	ended   chan struct{} // closed when it has ended
	err     error         // how; read after ended
}

// startProcess starts a program. Its lines are printed after the prefix.
func startProcess(ctx context.Context, prefix string, environment []string, path string, args ...string) (*process, error) {
	p := &process{command: exec.CommandContext(ctx, path, args...), output: &output{prefix: prefix}, ended: make(chan struct{})}
	p.command.Env = append(os.Environ(), environment...)
	p.command.Stdout, p.command.Stderr = p.output, p.output
	// Asked first; killed if that does not help.
	p.command.Cancel = func() error { return p.command.Process.Signal(syscall.SIGTERM) }
	p.command.WaitDelay = endTime
	var err error
	if p.stdin, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	go func() {
		p.err = p.command.Wait()
		close(p.ended)
	}()
	return p, nil
}

// await waits until the output since the last await matches, and returns what
// the groups of the pattern matched.
func (p *process) await(ctx context.Context, pattern string) ([]string, error) {
	compiled, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	for {
		select {
		case <-p.ended:
			// Its last output may still match.
			if groups := p.output.match(compiled); groups != nil {
				return groups, nil
			}
			return nil, fmt.Errorf("%s ended (%v) without printing %q", p.command.Path, p.err, pattern)
		case <-ctx.Done():
			return nil, fmt.Errorf("%s did not print %q: %w", p.command.Path, pattern, ctx.Err())
		case <-time.After(10 * time.Millisecond):
			if groups := p.output.match(compiled); groups != nil {
				return groups, nil
			}
		}
	}
}

// wait waits for the end, and returns the exit code.
func (p *process) wait(ctx context.Context) (int, error) {
	select {
	case <-p.ended:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	return exitCode(p.err)
}

// stop asks the program to end, and waits for it.
func (p *process) stop() error {
	select {
	case <-p.ended:
		return nil
	default:
	}
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("end %s: %w", p.command.Path, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	code, err := p.wait(ctx)
	if err == nil && code != 0 {
		err = fmt.Errorf("%s ended with %d when it was asked to", p.command.Path, code)
	}
	return err
}

func exitCode(err error) (int, error) {
	var ended *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &ended):
		return ended.ExitCode(), nil
	}
	return 0, err
}

// output keeps what a program prints, and prints its whole lines.
type output struct {
	prefix string

	mu    sync.Mutex // guards everything below
	text  bytes.Buffer
	read  int // match begins here
	shown int // lines up to here were printed
}

var logTime = regexp.MustCompile(`^time=\S+ level=\S+ `)

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	for {
		rest := o.text.Bytes()[o.shown:]
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			return len(p), nil
		}
		o.shown += end + 1
		if line := logTime.ReplaceAllString(string(rest[:end]), ""); strings.TrimSpace(line) != "" {
			show(o.prefix + line)
		}
	}
}

func (o *output) match(pattern *regexp.Regexp) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	rest := o.text.Bytes()[o.read:]
	at := pattern.FindSubmatchIndex(rest)
	if at == nil {
		return nil
	}
	o.read += at[1]
	var groups []string
	for n := 2; n < len(at); n += 2 {
		groups = append(groups, string(rest[at[n]:at[n+1]]))
	}
	if groups == nil {
		groups = []string{}
	}
	return groups
}

var printing sync.Mutex

// show prints a line of the transcript.
func show(line string) {
	printing.Lock()
	defer printing.Unlock()
	fmt.Println("   " + line)
}
