//go:build linux

package e2e_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// A whole appliance whose Middleware is attacked, is taken over, and ends; whose helper is
// killed; and whose power is cut.
func TestNoProcessOfTheApplianceOpensItByFailing(t *testing.T) {
	t.Parallel()
	stage.NeedRoot(t, "nmap")
	b := bootAppliance(t)
	owner := b.app(b.Attacker(2), "phone", "owner")
	_, key := newKey(t)
	b.apply(owner, "add a key", client.AddSSHKeys(key.Line, "laptop"))
	b.apply(owner, "open everything", func(p *client.Posture, view *client.PostureView, next uint64) error {
		return errors.Join(client.Expose(string(posture.KindElectrum), client.Opening{For: time.Hour})(p, view, next),
			client.EnableSSH(time.Hour)(p, view, next))
	})
	// By a document, so that the open one is history.
	b.apply(owner, "close everything", func(p *client.Posture, _ *client.PostureView, _ uint64) error {
		p.Extras, p.SSH = nil, nil
		return nil
	})

	t.Run("a Middleware that was taken over opens nothing", func(t *testing.T) {
		b.t = t
		b.takenOver(owner)
		b.onlyTheEntry("after all that it tried")
		if e := b.effective(owner); !e.Lockdown || len(e.Endpoints) != 1 || e.SSH != nil {
			t.Errorf("in force is %+v", e)
		}
		// The owner undoes what it has closed; and the scan can find something.
		b.apply(owner, "unlock", client.Keep)
		b.apply(owner, "open it again", client.Expose(string(posture.KindElectrum), client.Opening{For: time.Hour}))
		if found := b.scan(); len(found) != 2 {
			t.Errorf("with an extra API these ports answer: %q", found)
		}
		b.endLease(owner, posture.KindElectrum)
	})

	t.Run("Apps wait for a Middleware that is restarted", func(t *testing.T) {
		b.t = t
		for _, end := range [][]string{
			{"systemctl", "stop", generation.MiddlewareUnit},
			{"systemctl", "kill", "--signal=SIGKILL", generation.MiddlewareUnit},
		} {
			b.MustExec(end...)
			begun := time.Now()
			var calls sync.WaitGroup
			for range 4 {
				session := b.open(owner.app)
				calls.Go(func() { b.waits(session, fmt.Sprintf("after %q", end)) })
			}
			calls.Wait()
			b.waits(owner.Session, fmt.Sprintf("on an old session after %q", end))
			t.Logf("after %q all calls were answered within %v", end, time.Since(begun).Round(time.Millisecond))
		}
	})

	t.Run("a helper that is killed opens nothing and disturbs no App", func(t *testing.T) {
		b.t = t
		stream := b.watch(owner)
		b.MustExec("systemctl", "kill", "--signal=SIGKILL", helperUnit)
		if e := b.effective(owner); len(e.Endpoints) != 1 || e.SSH != nil {
			t.Errorf("in force is %+v", e)
		}
		b.onlyTheEntry("without the helper")
		b.goesOn("the stream of events", stream)
	})

	t.Run("a power cut during a try", func(t *testing.T) {
		b.t = t
		b.cutPowerDuringATry(owner)
	})
}

// scan returns what answers of all that was ever opened here.
func (b *base) scan() []string {
	b.t.Helper()
	return b.Attacker(1).Scan(b.t, b.V4, "-sS", "-p", "22,8800-8900,50000-50010")
}

func (b *base) onlyTheEntry(when string) {
	b.t.Helper()
	for _, found := range [][]string{b.scan(), b.Attacker(1).Scan(b.t, b.V6, "-sS", "-p-", "--min-rate", "20000")} {
		if !slices.Equal(found, []string{"tcp 8845 open"}) {
			b.t.Errorf("%s these ports answer: %q", when, found)
		}
	}
}

// takenOver does what an intruder in the Middleware would, at the helper's socket, as its
// user.
func (b *base) takenOver(owner *app) {
	t := b.t
	t.Helper()
	ctx := t.Context()
	ask := func(request *systemv1.SystemRequest) (*systemv1.SystemReply, error) {
		return b.middleware.Do(ctx, request, nil)
	}
	history := &systemv1.PostureChain{}
	if err := proto.Unmarshal(b.getPosture(make([]byte, 32)).GetChain(), history); err != nil || len(history.GetDocuments()) < 3 {
		t.Fatalf("read a history of %d documents: %v", len(history.GetDocuments()), err)
	}
	documents := map[string][]byte{}
	var err error
	for n, document := range history.GetDocuments() {
		if documents[fmt.Sprintf("document %d of the history", n)], err = proto.Marshal(document); err != nil {
			t.Fatal(err)
		}
		document.Signature = nil
		if documents[fmt.Sprintf("document %d without its signature", n)], err = proto.Marshal(document); err != nil {
			t.Fatal(err)
		}
	}
	// Perfect, except for its signer.
	view, err := owner.Posture(ctx)
	if err != nil {
		t.Fatal(client.Explain(err))
	}
	p, revision := view.Posture()
	if err := client.Expose(string(posture.KindElectrum), client.Opening{For: time.Hour})(&p, view, revision+1); err != nil {
		t.Fatal(err)
	}
	draft, err := view.Draft(p, nil, b.challenge(), false, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	seed, err := generateSeed(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	forged := posture.SignDocument(draft, seed)
	documents["a forged document"], documents["half a document"] = forged, forged[:len(forged)/2]

	requests := map[string]*systemv1.SystemRequest{
		"go back": {Verb: &systemv1.SystemRequest_LocalChange{LocalChange: &systemv1.LocalChange{
			Change: &systemv1.LocalChange_GoBack{GoBack: &systemv1.GoBack{Revision: 4}}}}},
		"lift a ban": {Verb: &systemv1.SystemRequest_LiftBan{LiftBan: &systemv1.LiftBan{By: &systemv1.LiftBan_Plain{
			Plain: &systemv1.LiftBanOrder{Address: "10.88.1.66"}}}}},
		"fix what is not broken": {Verb: &systemv1.SystemRequest_FixFinding{FixFinding: &systemv1.FixFinding{Id: "../../etc/passwd"}}},
		"announce something": {Verb: &systemv1.SystemRequest_Announce{Announce: &systemv1.Announce{Nonce: []byte("<x/>"),
			Id: []byte("../..")}}},
		"cut the owner off": {Verb: &systemv1.SystemRequest_Restrict{Restrict: &systemv1.Restrict{What: &systemv1.Restrict_AppCutOff{
			AppCutOff: &systemv1.AppCutOff{SigningKey: ownersKey(view)}}}}},
		"nothing": {},
	}
	for name, document := range documents {
		requests["submit "+name] = &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Submit{Submit: &systemv1.Submit{Document: document}}}
		requests["confirm by "+name] = &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ConfirmTry{ConfirmTry: &systemv1.ConfirmTry{
			Confirmation: document}}}
	}
	for name, request := range requests {
		if _, err := ask(request); err == nil {
			t.Errorf("the helper did it: %s", name)
		}
	}
	authority := b.middleware.Authority()
	for name, call := range map[string]func() error{
		"accept a request": func() error { return authority.Accept(ctx, 123456, basev1.Role_ROLE_OWNER) },
		"answer a code":    func() error { return authority.Answer(ctx, pairing.CeremonyID{}, true) },
		"retire the owner": func() error { return authority.Retire(ctx, ownersKey(view)) },
	} {
		if err := call(); err == nil {
			t.Errorf("the authority did it: %s", name)
		}
	}
	// To close is what it may, and does.
	if _, err := ask(&systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Restrict{Restrict: &systemv1.Restrict{
		What: &systemv1.Restrict_Lockdown{Lockdown: &systemv1.Lockdown{}}}}}); err != nil {
		t.Error(err)
	}
}

func ownersKey(view *client.PostureView) []byte {
	p, _ := view.Posture()
	return p.Apps[0].SigningKey[:]
}

// cutPowerDuringATry: what was opened and not confirmed is closed before anything
// listens again, and the App that tried it is told.
func (b *base) cutPowerDuringATry(owner *app) {
	t := b.t
	t.Helper()
	tried := b.tryUntilPowerCut(t.Context(), owner)
	if b.opensAtBoot() {
		t.Error("what was tried was open again at the boot")
	}
	b.ready()
	b.onlyTheEntry("after the power cut")
	owner.way.Shut.Store(false)
	if err := <-tried; !errors.Is(err, client.ErrUndone) {
		t.Errorf("the App was told %v", err)
	}
	if e := b.effective(owner); len(e.Endpoints) != 1 {
		t.Errorf("in force is %+v", e)
	}
	b.auditIsClean(owner, "after the power cut")

	// A Base on which nobody brings the configuration in line is found open.
	ctx, cancel := context.WithCancel(t.Context())
	tried = b.tryUntilPowerCut(ctx, owner)
	cancel()
	<-tried
	for unit, program := range map[string]string{"bitbox-base-prepare.service": "/usr/bin/true", helperUnit: "/usr/bin/sleep infinity"} {
		dropIn := b.Path("/etc/systemd/system/" + unit + ".d")
		err := os.MkdirAll(dropIn, 0o755)
		if err == nil {
			err = os.WriteFile(filepath.Join(dropIn, "broken.conf"), []byte("[Service]\nExecStart=\nExecStart="+program+"\nNoExecPaths=\n"), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !b.opensAtBoot() {
		b.Until("a Base without preparation is open, or the test shows nothing", func() error { return reaches(b.Attacker(4), b.electrumPort()) })
	}
}

// tryUntilPowerCut cuts the power when a change is in force that has not been
// confirmed. The channel has what becomes of it for the App, which is shut out.
func (b *base) tryUntilPowerCut(ctx context.Context, owner *app) (tried chan error) {
	b.t.Helper()
	b.works(owner.Session, "before the try")
	owner.way.Shut.Store(true) // the change locks the App out, as far as that can tell
	tried = make(chan error, 1)
	go func() {
		_, err := owner.Apply(ctx, client.Change{Edit: client.Expose(string(posture.KindElectrum), client.Opening{For: time.Hour}), Approve: yes})
		tried <- err
	}()
	b.Until("the try is in force", func() error {
		select {
		case err := <-tried:
			b.t.Fatalf("the try ended at once: %v", err)
		default:
		}
		return reaches(b.Attacker(1), b.electrumPort())
	})
	b.Kill()
	b.Until("nothing listens", func() error {
		for _, to := range []netip.AddrPort{b.entry(), b.electrumPort()} {
			if reaches(b.Attacker(1), to) == nil {
				return fmt.Errorf("%s can be reached", to)
			}
		}
		return nil
	})
	return tried
}

// knock is how long a stranger waits between two tries. The packet filter lets 20
// a second in from one address; a quicker one would be turned away for that alone.
const knock = 100 * time.Millisecond

// opensAtBoot boots the Base and tells whether strangers, each on a machine of their
// own, could connect to the extra API meanwhile, or can now.
func (b *base) opensAtBoot() bool {
	b.t.Helper()
	port := b.electrumPort()
	over := make(chan struct{})
	var opened atomic.Bool
	var strangers sync.WaitGroup
	for n := range 8 {
		stranger := b.Attacker(10 + n)
		strangers.Go(func() {
			for !opened.Load() {
				if reaches(stranger, port) == nil {
					opened.Store(true)
				}
				select {
				case <-over:
					return
				case <-time.After(knock):
				}
			}
		})
	}
	b.Start()
	b.Until("NGINX listens", func() error { return reaches(b.Attacker(3), b.entry()) })
	close(over)
	strangers.Wait()
	return opened.Load() || reaches(b.Attacker(4), port) == nil
}
