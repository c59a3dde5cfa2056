//go:build linux

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/factoryreset"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// Where the daemons keep what a reset removes.
const (
	middlewareState = "/var/lib/bitbox-base/middleware"
	loginHome       = "/home/base"
)

// marker is there from the order of a reset until it is finished.
var marker = filepath.Join(generation.StateDirectory, factoryreset.Marker)

// trace is put wherever somebody who used the Base may have left something.
const trace = "the-owner-was-here"

func (b *base) leaveTraces() {
	b.t.Helper()
	for _, folder := range []string{middlewareState, filepath.Dir(generation.HostKey), generation.CertificateDirectory, loginHome,
		generation.StateDirectory, "/var/lib/fail2ban"} {
		b.MustExec("mkdir", "-p", folder+"/"+trace)
		b.MustExec("touch", folder+"/"+trace+"/"+trace)
	}
	b.MustExec("systemd-cat", "echo", trace)
	b.MustExec("journalctl", "--flush", "--sync")
}

// traces lists what is left of them.
func (b *base) traces() string {
	b.t.Helper()
	found := b.MustExec("find", "/var", "/home", "-name", trace)
	if out := b.MustExec("journalctl", "--quiet", "--no-pager", "--output=cat"); strings.Contains(out, "\n"+trace+"\n") {
		found += "the journal"
	}
	return found
}

// isNew fails the test unless the Base is as it came, closed, and its log of this boot says so.
func (b *base) isNew(old map[string]string) {
	b.t.Helper()
	b.asNew(old)
	if log := b.Journal("bitbox-base-reset", "bitbox-base-prepare"); strings.Count(log, "this Base is as new") != 2 {
		b.t.Errorf("its log does not tell of it: %s", log)
	}
}

// asNew fails the test unless the Base is as it came, and closed.
func (b *base) asNew(old map[string]string) {
	b.t.Helper()
	b.ready()
	// The Base removes the folders that the reset put aside while it runs.
	b.Until("nothing lies aside", func() error {
		if aside := b.MustExec("find", "/var", "/home", "-maxdepth", "3", "-name", ".bitbox-base-discarded-*"); aside != "" {
			return errors.New(aside)
		}
		return nil
	})
	if left := b.traces(); left != "" {
		b.t.Errorf("there is still %s", left)
	}
	if _, err := os.Lstat(b.Path(marker)); err == nil {
		b.t.Error("the reset is not finished")
	}
	for path, content := range old {
		if now, err := os.ReadFile(b.Path(path)); err == nil && string(now) == content {
			b.t.Errorf("%s is as before", path)
		}
	}
	b.closed(b.sshd())
	b.closed(b.electrumPort())
	if out := b.MustExec("bitbox-base", "pairing", "list"); !strings.Contains(out, "has no owner") {
		b.t.Errorf("it says: %s", out)
	}
	if out := b.MustExec("systemctl", "--failed", "--no-legend"); strings.TrimSpace(out) != "" {
		b.t.Errorf("failed units:\n%s", out)
	}
}

// remembered are the files that say who the Base is.
func (b *base) remembered() map[string]string {
	b.t.Helper()
	files := map[string]string{}
	for _, path := range []string{generation.HostKey, middlewareState + "/middleware.db", generation.StateDirectory + "/system.db"} {
		content, err := os.ReadFile(b.Path(path))
		if err != nil && path != middlewareState+"/middleware.db" {
			b.t.Fatal(err)
		}
		files[path] = string(content)
	}
	return files
}

// identity is the key by which an App knows the Base.
func (b *base) identity(a *app) string {
	b.t.Helper()
	bases, err := a.app.Bases()
	if err != nil || len(bases) != 1 {
		b.t.Fatalf("the App knows %v, %v", bases, err)
	}
	return fmt.Sprintf("%x", bases[0].PublicKey)
}

func TestAnOwnersAppResetsABootedBase(t *testing.T) {
	t.Parallel()
	b := bootAppliance(t)
	b.electrum()
	owner, guest := b.app(b.Attacker(2), "phone", "owner"), b.app(b.Attacker(3), "tablet", "viewer")
	key, line := newKey(t)
	b.apply(owner, "add a key", client.AddSSHKeys(line.Line, "laptop"))
	b.apply(owner, "enable SSH", client.EnableSSH(time.Hour))
	b.apply(owner, "expose an API", client.Expose(string(posture.KindElectrum), client.Opening{For: time.Hour}))
	login := b.login(key)
	b.leaveTraces()
	old := b.remembered()
	ctx, cancel := context.WithTimeout(t.Context(), callTime)
	defer cancel()

	// An App without the right cannot; and the name is needed.
	if err := guest.FactoryReset(ctx, func(name string) (client.ResetAnswer, error) {
		return client.ResetAnswer{Typed: name}, nil
	}); err == nil {
		t.Fatal("a viewer has reset the Base")
	}
	if err := owner.FactoryReset(ctx, func(string) (client.ResetAnswer, error) {
		return client.ResetAnswer{Typed: "another"}, nil
	}); !errors.Is(err, client.ErrNotApproved) {
		t.Fatalf("with another name: %v", err)
	}
	for _, who := range []helperclient.Client{b.middleware} {
		if _, err := who.Do(ctx, resetHere, nil); !errors.Is(err, &helperclient.Error{Code: helperclient.CodePermission}) {
			t.Fatalf("the Middleware without an order: %v", err)
		}
	}
	b.works(owner.Session, "after all that")

	begun := time.Now()
	if err := owner.FactoryReset(ctx, func(name string) (client.ResetAnswer, error) {
		return client.ResetAnswer{Typed: name}, nil
	}); err != nil {
		t.Fatal(client.Explain(err))
	}
	b.AwaitReboot()
	t.Logf("from the order to a new Base it took %v", time.Since(begun).Round(time.Millisecond))
	select {
	case <-login:
	case <-time.After(cutTime):
		t.Error("the SSH session lives on")
	}
	b.isNew(old)

	// Each App is told something that a person can use: the one that has ordered it, what it has
	// done; the other, what must have happened.
	for name, told := range map[string]struct {
		app  *app
		kind error
		text string
	}{
		"the owner's": {owner, client.ErrPairAgain, "this App has wiped the Base"},
		"the guest's": {guest, client.ErrSilent, "the Base was reset and has forgotten this App"},
	} {
		session, err := told.app.app.Open("")
		if err == nil {
			t.Cleanup(session.Close)
			_, err = session.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
		}
		if !errors.Is(err, told.kind) || !strings.Contains(client.Explain(err), told.text) {
			t.Errorf("%s App says: %s", name, client.Explain(err))
		}
	}
	// And the next person at the Base can use it.
	fresh := b.app(b.Attacker(4), "new phone", "owner")
	if e := b.effective(fresh); len(e.Apps) != 1 || len(e.KnownSSHKeys) != 0 || e.SSH != nil || len(e.Endpoints) != 1 {
		t.Errorf("in force is %+v", e)
	}
	if b.identity(fresh) == b.identity(owner) {
		t.Error("the Base has kept its key")
	}
	b.auditIsClean(fresh, "after the reset")
}

// A power cut at any point of a reset leaves the old Base or a new one, and nothing
// else ever runs.
func TestAPowerCutDuringAResetOfABootedBase(t *testing.T) {
	t.Parallel()
	b := bootAppliance(t)
	b.app(b.Attacker(2), "phone", "owner")
	b.leaveTraces()
	old := b.remembered()

	// The name is asked for at the console, too.
	if out, err := b.Exec("bitbox-base", "local", "factory-reset", "another"); err == nil {
		t.Fatalf("with another name: %s", out)
	}
	// Putting them aside costs the same however many there are; taking them away does not.
	const many = 3000
	b.MustExec("sh", "-c", fmt.Sprintf("cd %s/%s && seq %d | xargs touch", middlewareState, trace, many))
	b.MustExec("bitbox-base", "local", "factory-reset", posture.Factory().NodeName)
	b.Kill() // the order is on the disk, and nothing else has happened
	if _, err := os.Lstat(b.Path(marker)); err != nil {
		t.Fatalf("the order was answered and is not on the disk: %v", err)
	}
	if _, err := os.Lstat(b.Path(generation.StateDirectory + "/system.db")); err != nil {
		t.Fatalf("something is gone already: %v", err)
	}
	gone := func(path string) bool {
		_, err := os.Lstat(b.Path(path))
		return errors.Is(err, fs.ErrNotExist)
	}
	// In the order in which they go. The power is cut when each is gone, unless that was so at the last cut.
	steps := []string{middlewareState + "/middleware.db", generation.StateDirectory + "/system.db", generation.HostKey,
		middlewareState + "/" + trace, generation.CertificateDirectory + "/" + trace, "/var/lib/fail2ban/" + trace, loginHome + "/" + trace,
		generation.StateDirectory + "/" + trace, marker}
	for _, step := range steps {
		if gone(step) || gone(marker) { // the cut before came late
			continue
		}
		b.StartAndCut(func() bool { return gone(step) })
		left := slices.DeleteFunc(slices.Clone(steps), gone)
		t.Logf("the power was cut when %s was gone; there were still %q", step, left)
		if gone(marker) && strings.Contains(strings.Join(left, " "), trace) {
			t.Fatal("the marker is gone before the rest")
		}
	}
	// The cut may have come right after the end: then the next boot has nothing to tell.
	_, pending := os.Lstat(b.Path(marker))
	b.Start()
	if pending == nil {
		b.isNew(old)
	} else {
		b.asNew(old)
	}
	// A reset is not done again by the next boot.
	again := b.remembered()
	b.Reboot()
	b.ready()
	for path, content := range b.remembered() {
		if path == generation.HostKey && content != again[path] {
			t.Errorf("the boot after has removed %s", path)
		}
	}
}

// A wipe that cannot be finished leaves a Base that is shut.
func TestABaseThatCannotFinishItsResetIsShut(t *testing.T) {
	t.Parallel()
	b := bootAppliance(t)
	b.app(b.Attacker(2), "phone", "owner")
	b.MustExec("bitbox-base", "local", "factory-reset", posture.Factory().NodeName)
	b.Kill()
	// Something lies where the marker is to be renamed to.
	obstacle := b.Path(marker + ".done")
	if err := os.MkdirAll(filepath.Join(obstacle, "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.Start()
	b.WaitState("bitbox-base-reset.service", "failed")
	for _, unit := range []string{generation.FirewallUnit, generation.ProxyUnit, generation.MiddlewareUnit, generation.SSHUnit,
		generation.MDNSUnit} {
		if state := b.State(unit); state == "active" || state == "activating" {
			t.Errorf("%s is %s", unit, state)
		}
	}
	b.closed(b.entry())
	if out, err := b.Exec("bitbox-base", "pairing", "list"); err == nil {
		t.Errorf("the helper answers: %s", out)
	}
	// Repaired, it goes on where it was.
	b.Kill()
	if err := os.RemoveAll(obstacle); err != nil {
		t.Fatal(err)
	}
	b.Start()
	b.ready()
	if _, err := os.Lstat(b.Path(marker)); err == nil {
		t.Error("the reset is not finished")
	}
}

// sitter is somebody before the console of a booted Base: the real program, as its
// own user, on a terminal.
type sitter struct {
	b        *base
	terminal *os.File
	end      func()
	mu       sync.Mutex
	shown    strings.Builder // all that was written since it was last looked for
}

func (b *base) console80x25() *sitter {
	b.t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = master.Close() })
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	err = errors.Join(err, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0),
		unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: 80}))
	if err != nil {
		b.t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer slave.Close()
	command := exec.Command("nsenter", "--target="+b.Leader(), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--",
		"setpriv", "--reuid="+caller.ConsoleUser, "--regid="+caller.ConsoleUser, "--init-groups", "/usr/bin/bitbox-base", "console")
	command.Env = []string{"TERM=linux"}
	command.Stdin, command.Stdout, command.Stderr = slave, slave, slave
	if err := command.Start(); err != nil {
		b.t.Fatal(err)
	}
	s := &sitter{b: b, terminal: master}
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			s.mu.Lock()
			s.shown.Write(buffer[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	s.end = sync.OnceFunc(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	b.t.Cleanup(s.end)
	return s
}

// sees waits until all of the texts were written since the last look.
func (s *sitter) sees(texts ...string) {
	s.b.t.Helper()
	s.b.Until(fmt.Sprintf("the console shows %q", texts), func() error { return s.looks(texts...) })
}

// looks is sees without waiting.
func (s *sitter) looks(texts ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, text := range texts {
		if !strings.Contains(s.shown.String(), text) {
			return fmt.Errorf("it does not show %q, but %q", text, s.shown.String())
		}
	}
	s.shown.Reset()
	return nil
}

// enters types digits, and Enter until the console shows the texts: for a moment after a question it
// takes no answer.
func (s *sitter) enters(digits string, texts ...string) {
	s.b.t.Helper()
	s.types(strings.ReplaceAll(digits, " ", ""))
	s.b.Until(fmt.Sprintf("the console takes %s, and shows %q", digits, texts), func() error {
		s.types("\r")
		return s.looks(texts...)
	})
}

func (s *sitter) types(text string) {
	s.b.t.Helper()
	if _, err := s.terminal.WriteString(text); err != nil {
		s.b.t.Fatal(err)
	}
}

func TestAnOwnerIsPairedAndTheBaseIsResetAtTheConsoleOfABootedBase(t *testing.T) {
	t.Parallel()
	b := bootAppliance(t)
	s := b.console80x25()
	s.sees("BitBox Base", b.V4.String(), "no owner yet", "closed: only the Apps' channel is open")

	a, err := client.New(client.Options{Dir: t.TempDir(), Name: "phone", NoDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), callTime)
	defer cancel()
	number, code, paired := make(chan string, 1), make(chan string, 1), make(chan error, 1)
	way := b.Attacker(2).Way(t, b.entry())
	go func() {
		_, err := a.Pair(ctx, []string{way.Address}, client.PairOptions{
			Requested: func(n string) { number <- n },
			Confirm: func(_ context.Context, c client.Code) (bool, error) {
				code <- c.Digits
				return true, nil
			},
		})
		paired <- err
	}()
	shows := func(digits chan string) string {
		t.Helper()
		select {
		case d := <-digits:
			return d
		case err := <-paired:
			t.Fatalf("pair: %s", client.Explain(err))
			return ""
		}
	}
	s.sees("An App asks to be paired")
	s.enters(shows(number), "Does the App show exactly this code?", `"phone"`)
	s.enters(shows(code), `"phone" is paired as owner`, "1 App is paired, 1 owner")
	if err := <-paired; err != nil {
		t.Fatal(client.Explain(err))
	}

	// The helper is killed, and nobody can reach it. The console waits, and goes on.
	const socket = "bitbox-base-system.socket"
	b.MustExec("systemctl", "stop", socket)
	b.MustExec("systemctl", "kill", "--signal=KILL", helperUnit)
	s.sees("Waiting for the system helper")
	b.MustExec("systemctl", "start", socket)
	s.sees("1 App is paired, 1 owner")

	// One key does not reset the Base, nor does the wrong name.
	b.leaveTraces()
	old := b.remembered()
	s.types("f")
	s.sees("FACTORY RESET", posture.Factory().NodeName)
	s.types("another\r")
	s.sees("not the requested text")
	s.types(posture.Factory().NodeName + "\r")
	s.sees("This Base is being wiped")
	s.end() // systemd stops all processes for a moment, and nsenter(1) would stay stopped
	b.AwaitReboot()
	b.isNew(old)
	s = b.console80x25()
	s.sees("no owner yet", "ordered by console")
}

// resetHere orders a reset as the person at the Base.
var resetHere = &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_FactoryReset{
	FactoryReset: &systemv1.FactoryReset{By: &systemv1.FactoryReset_Local{Local: &systemv1.LocalReset{}}}}}
