//go:build linux

package boot_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/provision"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// booted is a Base made of our package, with what its builder gave it along.
type booted struct {
	*stage.Stage
	t     *testing.T
	owner *client.App // the App of its claim
	way   string      // the entry's address for Apps of this process
	login ssh.Signer  // the key that is built in
	app   string      // the App's program
}

// firstBoot makes and boots one. It has not been asked anything.
func firstBoot(t *testing.T, lease time.Duration) (b *booted, content []byte) {
	t.Helper()
	stage.NeedRoot(t, "dpkg-deb", "nmap")
	b = &booted{t: t}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if b.login, err = ssh.NewSignerFromSigner(private); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "id.pub")
	if err := os.WriteFile(key, ssh.MarshalAuthorizedKey(b.login.PublicKey()), 0o600); err != nil {
		t.Fatal(err)
	}
	if b.owner, err = client.New(client.Options{Dir: t.TempDir(), Name: "builder", NoDiscovery: true}); err != nil {
		t.Fatal(err)
	}
	made, err := b.owner.Provision(t.TempDir(),
		client.ProvisionOptions{Name: "cellar", SSHKey: key, SSHLease: lease, NoDisplay: true, Pair: true})
	if err != nil {
		t.Fatal(client.Explain(err))
	}
	if content, err = os.ReadFile(made.File); err != nil {
		t.Fatal(err)
	}
	b.Stage = stage.Install(t, stage.Config{Package: deb(t, oldVersion), Build: func(root string) error {
		return stage.Provision(root, content)
	}})
	b.way = b.Attacker(1).Way(t, entry(b.Stage)).Address
	return b, content
}

// ask calls the Base once, over a new connection.
func (b *booted) ask(app *client.App) error {
	session, err := app.Open("", b.way)
	if err != nil {
		return err
	}
	defer session.Close()
	ctx, cancel := context.WithTimeout(b.t.Context(), callTime)
	defer cancel()
	_, err = session.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
	return err
}

// bootedIn boots, and prints how long it took until the App had its first answer.
func (b *booted) bootedIn(what string) {
	b.t.Helper()
	// After a power cut what ran before may still be ending.
	b.Until("nothing answers at the entry", func() error {
		conn, err := b.Attacker(1).Dial("tcp", entry(b.Stage))
		if err != nil {
			return nil
		}
		return errors.Join(errors.New("something answers"), conn.Close())
	})
	begun := time.Now()
	type moments struct{ open, answered time.Duration }
	answered := make(chan moments, 1)
	go func() {
		defer close(answered)
		var m moments
		if m.open = b.opensAfter(begun); m.open == 0 {
			return
		}
		for time.Since(begun) < stage.Patience {
			if b.ask(b.owner) == nil {
				m.answered = time.Since(begun)
				answered <- m
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	b.Start()
	m, ok := <-answered
	if !ok {
		b.t.Fatalf("%s: the App got no answer: %s", what, client.Explain(b.ask(b.owner)))
	}
	fmt.Printf("FIGURE %s: %.2f s after the power came on the entry was open, after %.2f s the App's first call was answered\n", what,
		m.open.Seconds(), m.answered.Seconds())
}

// opensAfter waits until the entry takes connections, and returns how long after begun
// that was; 0 if it never was. It tries ten times a second and does not wait for one
// try before the next: while the packet filter is closed a try is lost in silence, and
// the kernel repeats it after a second. Nor does it let the App try: on the way through
// this process it takes a Base that refuses it for another machine, and looks for seconds
// whether that is a second board of its image.
func (b *booted) opensAfter(begun time.Time) time.Duration {
	opened := make(chan time.Duration, 1)
	a, to := b.Attacker(1), entry(b.Stage)
	each := time.NewTicker(100 * time.Millisecond)
	defer each.Stop()
	for over := time.After(stage.Patience); ; {
		go func() {
			if conn, err := a.Dial("tcp", to); err == nil {
				_ = conn.Close()
				select {
				case opened <- time.Since(begun):
				default: // another try was first
				}
			}
		}()
		select {
		case after := <-opened:
			return after
		case <-over:
			return 0
		case <-each.C:
		}
	}
}

// healthy fails the test unless all that should run does, and nothing has failed.
func (b *booted) healthy(when string) {
	b.t.Helper()
	for _, unit := range []string{generation.FirewallUnit, "bitbox-base-system.service", "bitbox-base-middleware.service",
		generation.ProxyUnit, generation.BansUnit, generation.MDNSUnit} {
		b.WaitActive(unit)
	}
	if failed := strings.TrimSpace(b.MustExec("systemctl", "--failed", "--plain", "--no-legend")); failed != "" {
		b.t.Errorf("%s there have failed:\n%s\n%s", when, failed, b.Journal())
	}
	// A ring of units is not a failure to systemd: it leaves one of them out.
	if journal := b.Journal(); strings.Contains(journal, "ordering cycle") {
		b.t.Errorf("%s units wait for each other:\n%s", when, grep(journal, "ordering cycle"))
	}
}

func grep(text, word string) string {
	var found strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			found.WriteString(line)
		}
	}
	return found.String()
}

// apply has the owner's App change the posture.
func (b *booted) apply(ctx context.Context, what string, change client.Change) (*client.PostureView, error) {
	session, err := b.owner.Open("", b.way)
	if err != nil {
		return nil, err
	}
	defer session.Close()
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	change.Approve = func([]client.PostureChange) (bool, error) { return true, nil }
	view, err := session.Apply(ctx, change)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", what, client.Explain(err))
	}
	return view, nil
}

// logIn tries to log in with the key that is built in.
func (b *booted) logIn() error {
	conn, err := b.Attacker(1).Dial("tcp", netip.AddrPortFrom(b.V4, sshaccess.Port))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(stage.Patience)); err != nil {
		return err
	}
	c, channels, requests, err := ssh.NewClientConn(conn, "base", &ssh.ClientConfig{
		User: sshaccess.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(b.login)}, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
	if err != nil {
		return err
	}
	login := ssh.NewClient(c, channels, requests)
	defer login.Close()
	session, err := login.NewSession()
	if err != nil {
		return err
	}
	out, err := session.CombinedOutput("id --user --name")
	if err == nil && strings.TrimSpace(string(out)) != sshaccess.User {
		err = fmt.Errorf("there answers %q", out)
	}
	return err
}

// The root that is made of the packages alone, on its first boot and after.
func TestTheRootMadeOfPackagesBootsAsTheBaseThatItsBuilderMade(t *testing.T) {
	t.Parallel()
	b, content := firstBoot(t, 0)
	b.bootedIn("first boot")
	b.healthy("after the first boot")
	t.Run("nothing of the claim is left", func(t *testing.T) {
		if _, err := os.Lstat(b.Path(stage.ProvisionFile())); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the provisioning file is there: %v", err)
		}
		kept := b.MustExec("cat", generation.StateDirectory+"/provision")
		if !strings.Contains(kept, "\nname cellar\n") || strings.Contains(kept, "claim") {
			t.Errorf("the Base has kept %q", kept)
		}
		if owner := strings.TrimSpace(b.MustExec("stat", "--format=%U %a", provision.StateRoot+"/middleware")); owner != "bitbox-base 700" {
			t.Errorf("the Middleware's state belongs to %q", owner)
		}
	})
	t.Run("from the network only the entry answers", func(t *testing.T) {
		for _, target := range []netip.Addr{b.V4, b.V6} {
			if open := b.Attacker(3).Scan(t, target, "-sS", "-p-", "--min-rate", "20000"); len(open) != 1 || open[0] != "tcp 8845 open" {
				t.Errorf("at %s there answer %v", target, open)
			}
		}
	})
	t.Run("another App is paired from another machine, found by mDNS", func(t *testing.T) { b.pairByMDNS(t) })
	t.Run("the key that is built in lets in only while SSH is on", func(t *testing.T) {
		if err := b.logIn(); err == nil {
			t.Fatal("it lets in")
		}
		if _, err := b.apply(t.Context(), "switch SSH on", client.Change{Edit: client.EnableSSH(time.Hour)}); err != nil {
			t.Fatal(err)
		}
		if err := b.logIn(); err != nil {
			t.Errorf("SSH is on: %v", err)
		}
	})
	t.Run("a reboot ends SSH and nothing else", func(t *testing.T) {
		b.t = t
		b.Stop()
		b.bootedIn("reboot")
		b.healthy("after a reboot")
		b.sshIsOff()
	})
	t.Run("a power cut in the middle of an apply leaves the old or the new whole", func(t *testing.T) {
		b.t = t
		for _, at := range []string{"write", "switch", "reload"} {
			b.cutAt(at)
		}
	})
	t.Run("memory at rest", func(t *testing.T) { b.printMemory(t) })
	t.Run("a second board with the same file is refused", func(t *testing.T) { b.secondBoard(t, content) })
}

// cutAt cuts the power when the Base says that it does something. The App waits for that,
// so that it confirms nothing before.
func (b *booted) cutAt(step string) {
	b.t.Helper()
	var once sync.Once
	reached, cut, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	applying, giveUp := context.WithCancel(b.t.Context())
	defer giveUp()
	go func() {
		defer close(ended)
		expose := client.Expose("electrum", client.Opening{For: time.Hour})
		_, _ = b.apply(applying, "open an API", client.Change{Edit: expose, Progress: func(is string) {
			if strings.HasPrefix(is, step) {
				once.Do(func() { close(reached) })
				<-cut
			}
		}})
	}()
	select {
	case <-reached:
	case <-ended:
	case <-time.After(stage.Patience):
	}
	select {
	case <-reached:
	default:
		close(cut)
		b.t.Fatalf("the Base never came to %q", step)
	}
	b.Kill()
	close(cut)
	giveUp()
	<-ended
	b.bootedIn("after a power cut at " + step)
	b.healthy("after a power cut at " + step)
	session, err := b.owner.Open("", b.way)
	if err != nil {
		b.t.Fatal(err)
	}
	defer session.Close()
	view, err := session.Posture(b.t.Context())
	if err != nil {
		b.t.Fatalf("after a power cut at %s: %s", step, client.Explain(err))
	}
	// A change that was not confirmed is undone, and so are its rules.
	e := view.Effective()
	_, err = b.Attacker(1).Dial("tcp", netip.AddrPortFrom(b.V4, posture.Extras[0].Port))
	if len(e.Endpoints) != 1 || err == nil {
		b.t.Errorf("after a power cut at %s in force is %+v, and its port: %v", step, e, err)
	}
}

// program builds the App's program, once.
func (b *booted) program(t *testing.T) string {
	t.Helper()
	if b.app == "" {
		b.app = filepath.Join(t.TempDir(), "bitbox-app")
		goBuild(t, b.app, "../../cmd/bitbox-app")
	}
	return b.app
}

var requestNumber = regexp.MustCompile(`Request number:  (\d{3}) (\d{3})`)

// pairByMDNS pairs with the App's program, on another machine, that is told no address.
func (b *booted) pairByMDNS(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), callTime)
	defer cancel()
	b.MustExec("bitbox-base", "pairing", "open")
	command := b.Attacker(2).Command(ctx, b.program(t), "pair", "--app-name", "tablet")
	command.Env = append(os.Environ(), "BITBOX_APP_DIR="+t.TempDir())
	keyboard, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	screen, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	command.Stderr = os.Stderr
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = command.Process.Kill() }() // it has ended, or must
	lines := bufio.NewScanner(screen)
	for lines.Scan() {
		if found := requestNumber.FindStringSubmatch(lines.Text()); found != nil {
			go b.actAtBase(ctx, found[1]+found[2], keyboard)
			break
		}
	}
	rest, err := io.ReadAll(screen)
	if err := errors.Join(err, command.Wait()); err != nil || !strings.Contains(string(rest), `Paired with "cellar"`) {
		t.Errorf("%v: %s", err, rest)
	}
}

var codeShown = regexp.MustCompile(`"code":\s*"(\d{3} \d{3})"`)

// actAtBase accepts a number at the Base, reads its code, types that into the App, and
// says yes.
func (b *booted) actAtBase(ctx context.Context, number string, keyboard io.Writer) {
	for ctx.Err() == nil { // the request is not there at once
		if _, err := b.Exec("bitbox-base", "pairing", "accept", number, "--role", "viewer"); err == nil {
			break
		}
	}
	for ctx.Err() == nil {
		out, _ := b.Exec("bitbox-base", "pairing", "list", "--json") // without a code it is asked again
		if found := codeShown.FindStringSubmatch(out); found != nil {
			_, _ = io.WriteString(keyboard, found[1]+"\n")
			_, _ = b.Exec("bitbox-base", "pairing", "confirm", found[1])
			return
		}
	}
}

// secondBoard boots a second board with the same file, and shows it to the App.
func (b *booted) secondBoard(t *testing.T, content []byte) {
	b.Stop()
	second := stage.Install(t, stage.Config{Package: deb(t, oldVersion), Build: func(root string) error {
		return stage.Provision(root, content)
	}})
	second.Start()
	there := second.Attacker(1).Way(t, entry(second)).Address
	stage.Until(t, "the second board answers, and is refused", func() error {
		session, err := b.owner.Open("", there)
		if err != nil {
			return err
		}
		defer session.Close()
		ctx, cancel := context.WithTimeout(t.Context(), callTime)
		defer cancel()
		_, err = session.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
		if !errors.Is(err, client.ErrSecondBoard) {
			return fmt.Errorf("the App says %q", client.Explain(err))
		}
		return nil
	})
}

// printMemory prints what each service has in memory that it shares with nobody else
// or its part of what is shared (PSS).
func (b *booted) printMemory(t *testing.T) {
	b.t = t
	b.healthy("at rest")
	total := 0
	fmt.Println("memory at rest (proportional set size):")
	for line := range strings.Lines(b.MustExec("systemctl", "list-units", "--plain", "--no-legend", "--state=active", "--type=service")) {
		unit, _, _ := strings.Cut(line, " ")
		group := strings.TrimSpace(b.MustExec("systemctl", "show", "--property=ControlGroup", "--value", unit))
		kib := 0
		for pid := range strings.FieldsSeq(b.MustExec("sh", "-c",
			"cat /sys/fs/cgroup$0/cgroup.procs /sys/fs/cgroup/systemd$0/cgroup.procs 2>/dev/null || true", group)) {
			rollup, err := b.Exec("cat", "/proc/"+pid+"/smaps_rollup")
			if err != nil {
				continue // it has just ended
			}
			for field := range strings.Lines(rollup) {
				if value, found := strings.CutPrefix(field, "Pss:"); found {
					n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
					kib += n
				}
			}
		}
		if kib > 0 {
			fmt.Printf("  %-36s %6.1f MiB\n", unit, float64(kib)/1024)
			total += kib
		}
	}
	fmt.Printf("  %-36s %6.1f MiB\n", "all", float64(total)/1024)
	if total == 0 {
		t.Error("nothing was measured")
	}
}

// The builder of an image may request SSH from the first boot on, and gets it once.
func TestSSHFromTheFirstBootOnIsOverAfterTheFirstReboot(t *testing.T) {
	t.Parallel()
	b, _ := firstBoot(t, time.Hour)
	b.Start()
	stage.Until(t, "the built-in key lets in", b.logIn)
	b.Stop()
	b.Start()
	b.healthy("after a reboot")
	b.sshIsOff()
}

// sshIsOff fails the test if SSH is on, or is about to be.
func (b *booted) sshIsOff() {
	b.t.Helper()
	session, err := b.owner.Open("", b.way)
	if err != nil {
		b.t.Fatal(err)
	}
	defer session.Close()
	var view *client.PostureView
	b.Until("the Base tells its posture", func() error {
		view, err = session.Posture(b.t.Context())
		return err
	})
	if view.Effective().SSH != nil || b.logIn() == nil {
		b.t.Errorf("SSH is on: %+v", view.Effective().SSH)
	}
}
