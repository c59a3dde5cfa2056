//go:build linux

package e2e_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/firewall"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/provisioning"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// The addresses of a Base.
func (b *base) entry() netip.AddrPort { return netip.AddrPortFrom(b.V4, posture.EntryPort) }
func (b *base) sshd() netip.AddrPort  { return netip.AddrPortFrom(b.V4, sshaccess.Port) }
func (b *base) electrumPort() netip.AddrPort {
	return netip.AddrPortFrom(b.V4, posture.Extras[0].Port)
}

// bootAppliance boots a Base of which nothing is replaced. given is its provisioning file.
func bootAppliance(t *testing.T, given ...provisioning.File) *base {
	t.Helper()
	s := stage.Boot(t, stage.Config{Real: true, Prepare: func(t *testing.T, root string) {
		for _, file := range given {
			content, err := file.Marshal()
			if err == nil {
				err = stage.Provision(root, content)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		relay, err := os.ReadFile("/proc/self/exe")
		if err == nil {
			err = os.WriteFile(filepath.Join(root, "usr/bin/e2e-relay"), relay, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}})
	b := &base{Stage: s, t: t, middleware: helperclient.Client{Port: userPort{s, firewall.MiddlewareUser}}}
	b.ready()
	return b
}

// ready waits until everything runs that faces the network or guards it.
func (b *base) ready() {
	b.t.Helper()
	for _, unit := range []string{generation.FirewallUnit, helperUnit, generation.ProxyUnit, generation.BansUnit, generation.MDNSUnit} {
		b.WaitActive(unit)
	}
}

// Until waits in the name of the present subtest.
func (b *base) Until(what string, condition func() error) {
	b.t.Helper()
	stage.Until(b.t, what, condition)
}

// app is an App on a machine of its own, with a session.
type app struct {
	*client.Session
	app *client.App
	id  string
	way *stage.Way
}

// callTime bounds what an App does, on a machine that has much else to do.
const callTime = 2 * time.Minute

// app pairs an App. Somebody stands at the Base and types what is to be typed.
func (b *base) app(from *stage.Attacker, name, role string) *app {
	b.t.Helper()
	way := from.Way(b.t, b.entry())
	a, paired := b.Pair(b.t, way, name, role)
	return &app{b.open(a), a, paired.AppID, way}
}

func (b *base) open(a *client.App) *client.Session {
	b.t.Helper()
	session, err := a.Open("")
	if err != nil {
		b.t.Fatal(client.Explain(err))
	}
	b.t.Cleanup(session.Close)
	return session
}

// call asks the Base something that anybody may ask.
func call(ctx context.Context, session *client.Session) error {
	_, err := session.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
	return err
}

// works fails the test unless a call on a session is answered.
func (b *base) works(session *client.Session, when string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	if err := call(ctx, session); err != nil {
		b.t.Errorf("%s the Base does not answer: %s", when, client.Explain(err))
	}
}

// waits is works for a Base whose Middleware restarts: on a busy machine that may outlast the limit
// of one handshake, and an App may not have heard yet that its connection has ended. Then it asks
// once more.
func (b *base) waits(session *client.Session, when string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	err := call(ctx, session)
	if errors.Is(err, client.ErrSilent) || errors.Is(err, client.ErrLost) {
		b.t.Logf("%s a connection was ended: %v", when, err)
		err = call(ctx, session)
	}
	if err != nil {
		b.t.Errorf("%s the Base does not answer: %s", when, client.Explain(err))
	}
}

// watch follows events until the stream ends.
func (b *base) watch(a *app) (ended chan struct{}) {
	b.t.Helper()
	stream, err := a.Events.WatchEvents(context.Background(), &basev1.WatchEventsRequest{})
	if err != nil {
		b.t.Fatal(client.Explain(err))
	}
	if _, err := stream.Receive(); err != nil { // the first says that it is live
		b.t.Fatalf("no event: %s", client.Explain(err))
	}
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		for _, err := range stream.All() {
			if err != nil {
				b.whyEnded.Store(ended, err)
			}
		}
	}()
	return ended
}

// goesOn fails the test if something has ended.
func (b *base) goesOn(what string, ended chan struct{}) {
	b.t.Helper()
	select {
	case <-ended:
		why, _ := b.whyEnded.Load(ended)
		b.t.Errorf("%s was ended: %v", what, why)
	case <-time.After(200 * time.Millisecond):
	}
}

// yes approves of whatever is shown.
func yes([]client.PostureChange) (bool, error) { return true, nil }

// apply has an owner's App change the posture; the Base then is as that says.
func (b *base) apply(a *app, what string, edit client.Edit) posture.Effective {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), callTime)
	defer cancel()
	begun := time.Now()
	view, err := a.Apply(ctx, client.Change{Edit: edit, Approve: yes, Unlock: true})
	if err != nil {
		b.t.Fatalf("%s: %s", what, client.Explain(err))
	}
	b.t.Logf("to %s took %v", what, time.Since(begun).Round(time.Millisecond))
	return view.Effective()
}

func (b *base) endLease(a *app, kind posture.Kind) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), callTime)
	defer cancel()
	if _, err := a.EndLease(ctx, string(kind), yes); err != nil {
		b.t.Fatalf("end %s: %s", kind, client.Explain(err))
	}
}

// effective is what is in force, by the helper's signature.
func (b *base) effective(a *app) posture.Effective {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), callTime)
	defer cancel()
	view, err := a.Posture(ctx)
	if err != nil {
		b.t.Fatal(client.Explain(err))
	}
	return view.Effective()
}

// stageFindings are the findings of an audit on a stage, whose kernel is the host's and whose
// root has no lists of packages.
var stageFindings = []string{"kernel-settings-host", "updates-unknown"}

func (b *base) auditIsClean(a *app, when string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), callTime)
	defer cancel()
	audit, err := a.Audit.RunAudit(ctx, &basev1.RunAuditRequest{})
	if err != nil {
		b.t.Fatal(client.Explain(err))
	}
	for _, f := range audit.GetFindings() {
		// The stand-in for electrs is a process of the test, in no unit of the Base.
		standIn := f.GetId() == "listener-unexpected" && f.GetFound() == "tcp 127.0.0.1:50001, user 0"
		if !standIn && !slices.Contains(stageFindings, f.GetId()) {
			b.t.Errorf("%s the audit finds %s: expected %q, found %q", when, f.GetId(), f.GetExpected(), f.GetFound())
		}
	}
}

func TestAnOwnersAppRunsAWholeAppliance(t *testing.T) {
	t.Parallel()
	b := bootAppliance(t)
	b.electrum()
	owner := b.app(b.Attacker(2), "phone", "owner")
	guest := b.app(b.Attacker(3), "tablet", "viewer")
	b.works(b.open(owner.app), "over a new connection")
	if e := b.effective(owner); len(e.Endpoints) != 1 || e.SSH != nil || len(e.Apps) != 2 {
		t.Errorf("a new Base has in force %+v", e)
	}
	b.auditIsClean(owner, "at first")
	stream := b.watch(owner)

	t.Run("an extra API on a port of its own", func(t *testing.T) {
		b.t = t
		b.closed(b.electrumPort())
		b.apply(owner, "expose it", client.Expose(string(posture.KindElectrum), client.Opening{For: time.Hour}))
		wallet := ends(b.mustWallet(b.electrumPort()))
		b.auditIsClean(owner, "with an extra API")
		b.cutOff(map[string]chan struct{}{"the wallet's connection": wallet}, func() { b.endLease(owner, posture.KindElectrum) })
		b.closed(b.electrumPort())
	})
	t.Run("an extra API beside the entry", func(t *testing.T) {
		b.t = t
		b.apply(owner, "expose it", client.Expose(string(posture.KindElectrum), client.Opening{For: time.Hour, ShareEntry: true}))
		wallet := ends(b.mustWallet(b.entry()))
		b.works(b.open(owner.app), "beside an extra API")
		b.cutOff(map[string]chan struct{}{"the wallet's connection": wallet}, func() { b.endLease(owner, posture.KindElectrum) })
	})
	b.t = t
	b.goesOn("the owner's stream of events", stream)
	b.goesOn("the guest's", b.watch(guest))

	identity, key := newKey(t)
	t.Run("SSH", func(t *testing.T) {
		b.t = t
		ctx := t.Context()
		if _, err := owner.Apply(ctx, client.Change{Edit: client.EnableSSH(time.Hour), Approve: yes}); !errors.Is(err, client.ErrInvalid) {
			t.Errorf("SSH without a key: %v", err)
		}
		b.closed(b.sshd())
		b.apply(owner, "add a key", client.AddSSHKeys(key.Line, "laptop"))
		b.closed(b.sshd())
		b.apply(owner, "enable SSH", client.EnableSSH(time.Hour))
		login := b.login(identity)
		b.auditIsClean(owner, "with SSH")
		b.cutOff(map[string]chan struct{}{"the SSH session": login}, func() { b.endLease(owner, posture.KindSSH) })
		b.closed(b.sshd())
	})
	t.Run("lockdown", func(t *testing.T) {
		b.t = t
		b.apply(owner, "enable SSH", client.EnableSSH(time.Hour))
		b.apply(owner, "expose an API", client.Expose(string(posture.KindElectrum), client.Opening{For: time.Hour}))
		login, wallet, others := b.login(identity), ends(b.mustWallet(b.electrumPort())), b.watch(guest)
		own := b.watch(owner)
		var view *client.PostureView
		b.cutOff(map[string]chan struct{}{"the SSH session": login, "the wallet's connection": wallet, "another App's session": others},
			func() {
				var err error
				if view, err = owner.Lockdown(t.Context()); err != nil {
					t.Fatal(client.Explain(err))
				}
			})
		b.goesOn("the session of the App that asked", own)
		b.closed(b.sshd())
		b.closed(b.electrumPort())
		if e := view.Effective(); !e.Lockdown || e.SSH != nil || len(e.Endpoints) != 1 {
			t.Errorf("in force is %+v", e)
		}
		if snapshot := b.MustExec("bitbox-base", "pairing", "list"); strings.Contains(snapshot, "is open") {
			t.Errorf("pairing goes on: %s", snapshot)
		}
		b.auditIsClean(owner, "locked down")
		if e := b.apply(owner, "unlock", client.Keep); e.Lockdown {
			t.Error("the owner cannot lift the lockdown")
		}
	})

	t.Run("a revoked App", func(t *testing.T) {
		b.t = t
		own := b.watch(owner)
		b.cutOff(map[string]chan struct{}{"the revoked App's stream of events": b.watch(guest)}, func() {
			if _, err := owner.RevokeApp(t.Context(), guest.id, yes); err != nil {
				t.Fatal(client.Explain(err))
			}
		})
		b.goesOn("the owner's stream of events", own)
		if _, err := b.open(guest.app).Info.GetInfo(t.Context(), &basev1.GetInfoRequest{}); !errors.Is(err, client.ErrRevoked) {
			t.Errorf("the revoked App connects again: %v", err)
		}
	})
	b.t = t
	b.auditIsClean(owner, "at the end")
}
