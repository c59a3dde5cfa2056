package host

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/bounded"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/apply"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/programs"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// stepTime bounds how long a program or systemd may take.
const stepTime = apply.StepTime

// maxOutput bounds how much of a program's output is read, in bytes.
const maxOutput = 1 << 20

// Programs, by absolute path: PATH decides nothing.
const (
	systemctl     = "/usr/bin/systemctl"
	journalctl    = "/usr/bin/journalctl"
	iptables      = "/usr/sbin/iptables"
	ip6tables     = "/usr/sbin/ip6tables"
	iptablesSave  = "/usr/sbin/iptables-save"
	ip6tablesSave = "/usr/sbin/ip6tables-save"
	sshd          = "/usr/sbin/sshd"
	fail2ban      = "/usr/bin/fail2ban-client"
)

// Exec runs a program without a shell and returns its standard output: an empty environment, no
// input, a deadline, and a bound on the output.
func Exec(ctx context.Context, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	command := programs.Command(ctx, argv...)
	// A grandchild that keeps the pipes open must not block us.
	command.WaitDelay = time.Second
	stdout, stderr := &bounded.Buffer{Most: maxOutput}, &bounded.Buffer{Most: maxOutput}
	command.Stdout, command.Stderr = stdout, stderr
	err := command.Run()
	if err == nil && stdout.Full() {
		err = errTooMuch
	}
	if err != nil {
		return stdout.String(), &programs.Failure{Argv: argv, Err: errors.Join(err, ctx.Err()), Said: stderr.LastWords()}
	}
	return stdout.String(), nil
}

// errTooMuch is returned with as much of the beginning of the output as fits.
var errTooMuch = reason.Errorf("it printed more than %d bytes", maxOutput)

// maxJournalLine is the longest line of journalctl that is read, in bytes.
const maxJournalLine = 256 << 10

// lines runs a program without a shell, and gives each line of its output to receive; nil for a
// line longer than maxJournalLine. Its only deadline is ctx; when it returns the program has
// ended.
func lines(ctx context.Context, receive func(line []byte, more bool) error, argv ...string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	command := programs.Command(ctx, argv...)
	command.Env = []string{"TZ=UTC", "LC_ALL=C.UTF-8"}
	command.WaitDelay = time.Second
	stderr := &bounded.Buffer{Most: maxOutput}
	command.Stderr = stderr
	stdout, err := command.StdoutPipe()
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		return reason.Errorf("run %s: %w", argv[0], err)
	}
	refused := eachOutputLine(bufio.NewReaderSize(stdout, 64<<10), receive)
	if refused != nil {
		cancel() // it is killed, because the rest is not wanted
	}
	err = command.Wait()
	switch {
	case refused != nil:
		return refused
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return &programs.Failure{Argv: argv[:1], Err: err, Said: stderr.LastWords()}
	}
	return nil
}

// eachOutputLine returns nil at the end, even at an early one.
func eachOutputLine(from *bufio.Reader, receive func(line []byte, more bool) error) error {
	var line []byte
	for long := false; ; {
		part, err := from.ReadSlice('\n')
		if long = long || len(line)+len(part) > maxJournalLine; long {
			line = nil
		} else {
			line = append(line, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return nil
		}
		whole := bytes.TrimSuffix(line, []byte{'\n'})
		if long {
			whole = nil
		}
		if err := receive(whole, from.Buffered() > 0); err != nil {
			return err
		}
		line, long = line[:0], false
	}
}
