package reason

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unicode"
	"unicode/utf8"
)

// typed is an error of ours with a cause that its text does not show.
type typed struct{ cause error }

func (t typed) Error() string { return "the version did not start" }
func (t typed) Unwrap() error { return t.cause }

// teller has two texts.
type teller struct{}

func (teller) Error() string  { return "run /bin/x: exit status 3: no such option" }
func (teller) Reason() string { return "x ended with status 3" }

func TestReasonsAreInOurOwnWords(t *testing.T) {
	full := &fs.PathError{Op: "write", Path: "/var/lib/x", Err: syscall.ENOSPC}
	refused := &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1},
		Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	status := exec.Command("/bin/sh", "-c", "exit 7").Run()
	killed := exec.Command("/bin/sh", "-c", "kill -9 $$").Run()
	_, number := strconv.Atoi("x")
	_, address := netip.ParseAddr("x")
	malformed := json.Unmarshal([]byte("{"), new(int))
	failed := "it failed; the Base's log says why"
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"a sentinel of ours":       {New("no owner would be left"), "no owner would be left"},
		"a wrapped one":            {Errorf("revoke: %w", New("no owner would be left")), "revoke: no owner would be left"},
		"a library's own":          {errors.New("ssh: no key found"), failed},
		"one that a library wraps": {fmt.Errorf("tls: failed to parse: %w", errors.New("ssh: no key found")), failed},
		"ours below a library's":   {fmt.Errorf("ssh: callback: %w", New("no owner would be left")), "no owner would be left"},
		"a library's that we wrap": {Errorf("read the key: %w", errors.New("ssh: no key found")), "read the key: " + failed},
		"one that we only show": {Errorf("read the key: %v", fmt.Errorf("ssh: %w", io.EOF)),
			"read the key: the connection or the file ended too early"},
		"two of ours":                {errors.Join(New("one"), errors.New("ssh: no key found"), New("two")), "one; " + failed + "; two"},
		"a type of ours":             {typed{io.EOF}, "the version did not start"},
		"one with two texts":         {Errorf("install: %w", teller{}), "install: x ended with status 3"},
		"a full disk":                {Errorf("save it: %w", full), "save it: the disk is full"},
		"nothing at a port":          {Errorf("ask: %w: again", refused), "ask: nothing answers there: again"},
		"a status":                   {Errorf("run it: %w", status), "run it: the program ended with status 7"},
		"a signal":                   {killed, "the program was ended from outside"},
		"a status and a deadline":    {errors.Join(status, context.DeadlineExceeded), "the program ended with status 7; it took too long"},
		"an early end":               {Errorf("read: %w", io.ErrUnexpectedEOF), "read: the connection or the file ended too early"},
		"a missing file":             {Errorf("read: %w", fs.ErrNotExist), "read: it does not exist"},
		"a deadline of a connection": {&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, "it took too long"},
		"a caller that left":         {context.Canceled, "it was interrupted"},
		"a rare number":              {os.NewSyscallError("ioctl", syscall.Errno(99999)), "the system refused it (99999)"},
		"a number that is none":      {Errorf("read: %w", number), "read: " + failed},
		"an address that is none":    {address, failed},
		"JSON that is none":          {Errorf("two: %w: %w", New("ours"), malformed), "two: ours: " + failed},
		"the same text twice": {Errorf("EOF of %w after %w", io.EOF, io.EOF),
			"EOF of the connection or the file ended too early after the connection or the file ended too early"},
	} {
		if got := Of(c.err); got != c.want {
			t.Errorf("%s: %q, not %q", name, got, c.want)
		}
		// The broken variant is the text as it is.
		for _, of := range []string{"exit status", "no space", "connection refused", "context ", "unexpected EOF", "strconv",
			"ssh", "tls", "\n"} {
			if strings.Contains(Of(c.err), of) {
				t.Errorf("%s: %q has %q", name, Of(c.err), of)
			}
		}
	}
}

// foreign is a cause with the text that a stranger has chosen.
type foreign string

func (f foreign) Error() string { return "the App's name is " + string(f) }

// A text that somebody chose stands among our words: a name, an answer of a program, an error of ours that has it.
// It must not write a second line, drive a terminal, or hide that a library's text is replaced.
func TestATextFromOutsideStaysOneHarmlessLineAndHidesNoCause(t *testing.T) {
	library := errors.New("ssh: no key found")
	failed := "it failed; the Base's log says why"
	for _, text := range []string{"\x1b[2J", "\u009b2J", "\x9b2J", "a\nb\rc\u2028d\u0085e", "\u202eevil", "\xff", library.Error()} {
		for name, err := range map[string]error{
			"made":      New(text),
			"an answer": Errorf("read the key: %w: %s", library, text),
			"a name":    Errorf("read the key of %s: %w", text, library),
			"its type":  Errorf("read the key: %w: %s", foreign(text), text),
			"several":   errors.Join(foreign(text), library),
		} {
			got := Of(err)
			if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%s: %q is no harmless line", name, got)
			}
			if errors.Is(err, library) && !strings.Contains(got, failed) {
				t.Errorf("%s: %q keeps a library's text", name, got)
			}
		}
	}
	// The broken variant searches the text for that of the cause, and finds the one from outside.
	if got := Of(Errorf("read it: %w: %s", library, "ssh: no key found.pem")); got != "read it: "+failed+": ssh: no key found.pem" {
		t.Errorf("%q", got)
	}
}

func TestErrorsOfOursWrapAsThoseOfFmt(t *testing.T) {
	ours := New("no owner would be left")
	for name, err := range map[string]error{
		"one":   Errorf("revoke %q: %w", "Laptop", ours),
		"two":   Errorf("%w after %w", io.EOF, ours),
		"below": fmt.Errorf("a library: %w", Errorf("revoke: %w", ours)),
	} {
		if !errors.Is(err, ours) {
			t.Errorf("%s: %q does not wrap what it names", name, err)
		}
	}
	if err := Errorf("revoke: %v", ours); errors.Is(err, ours) {
		t.Errorf("%q wraps what it only shows", err)
	}
	if err := Errorf("revoke: %w", nil); errors.Unwrap(err) != nil || Of(err) != "revoke: %!w(<nil>)" {
		t.Errorf("nothing was wrapped: %q", Of(err))
	}
}
