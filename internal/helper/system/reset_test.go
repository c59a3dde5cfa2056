package system

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/factoryreset"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/ledger"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/machinetest"
)

func resetByOrder(order []byte) *systemv1.SystemRequest {
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_FactoryReset{
		FactoryReset: &systemv1.FactoryReset{By: &systemv1.FactoryReset_Order{Order: order}}}}
}

func resetHere() *systemv1.SystemRequest {
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_FactoryReset{
		FactoryReset: &systemv1.FactoryReset{By: &systemv1.FactoryReset_Local{Local: &systemv1.LocalReset{}}}}}
}

func getSummary() *systemv1.SystemRequest {
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_GetSummary{GetSummary: &systemv1.GetSummary{}}}
}

// order is an App's signed order to wipe the Base of this name.
func (a *app) order(name string) []byte {
	a.base.t.Helper()
	return posture.SignReset(a.look().ResetOrder(name, a.challenge()), a.seed)
}

// nextBoot finishes the reset as the unit does at boot, and starts the helper.
func (b *base) nextBoot() {
	b.t.Helper()
	if err := factoryreset.Finish(factoryreset.Plan{Directory: b.directory}); err != nil {
		b.t.Fatal(err)
	}
	b.config.BootID = "boot 2"
	if err := ledger.Prepare(b.config.Config); err != nil {
		b.t.Fatal(err)
	}
	b.world = machinetest.New(b.directory)
	b.config.Live, b.config.Banner, b.config.Network = b.world, b.world, b.world
	b.start()
	b.settled()
}

func TestAFactoryResetMakesTheBaseAsNew(t *testing.T) {
	for name, by := range map[string]func(*base, *app) error{
		"an owner's App": func(b *base, a *app) error {
			_, err := b.as(caller.Middleware).Do(t.Context(), resetByOrder(a.order(b.helper.keeper.BaseName())), nil)
			return err
		},
		"console": func(b *base, _ *app) error {
			_, err := b.as(caller.Console).Do(t.Context(), resetHere(), nil)
			return err
		},
		"root": func(b *base, _ *app) error {
			_, err := b.as(caller.Root).Do(t.Context(), resetHere(), nil)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBase(t)
			var restarts atomic.Int32
			b.config.Restart = func(context.Context) error {
				restarts.Add(1)
				return nil
			}
			// The image was built with SSH on from the first boot, which is over.
			b.config.Factory.SSHKeys, b.config.FirstLease = []sshkey.Key{testKey()}, time.Hour
			b.start()
			b.settled()
			if b.helper.Effective().SSH == nil {
				t.Fatal("SSH is not on, so there is nothing to see")
			}
			a := b.pair(b.as(caller.Middleware), "phone", owner)
			a.mustSubmit(open)
			b.settled()
			key, before := b.helper.StateKey(), a.look()
			late := posture.SignDocument(a.draft(false, exposeOwnPort), a.seed)
			if err := by(b, a); err != nil {
				t.Fatal(err)
			}

			// From the order on nothing else is done.
			for what, request := range map[string]*systemv1.SystemRequest{
				"a document of the owner": submitRequest(late), "an opened window": {Verb: &systemv1.SystemRequest_Authority{
					Authority: &systemv1.AuthorityRequest{Verb: &systemv1.AuthorityRequest_OpenWindow{OpenWindow: &systemv1.OpenWindow{}}}}},
				"a summary": getSummary(),
			} {
				if _, err := b.as(caller.Root).Do(t.Context(), request, nil); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeReset}) {
					t.Errorf("%s: %v", what, err)
				}
			}
			until(t, "the Base is restarted", func() error {
				if restarts.Load() == 0 {
					return errors.New("not yet")
				}
				return nil
			})
			b.stop()
			if _, err := Open(b.config); !errors.Is(err, factoryreset.ErrOrdered) {
				t.Fatalf("a helper starts before the reset is finished: %v", err)
			}

			b.nextBoot()
			e := b.helper.Effective()
			if len(e.Apps) != 0 || e.SSH != nil || len(e.KnownSSHKeys) != 1 || len(e.Endpoints) != 1 || e.Revision != 0 {
				t.Errorf("in force is %+v", e)
			}
			if b.helper.StateKey().Equal(key) {
				t.Error("the Base has kept its key")
			}
			if err := b.world.Is(e); err != nil {
				t.Errorf("the machine: %v", err)
			}
			// A document that was signed before the reset is void.
			a.via = b.as(caller.Middleware)
			if err := a.submitSigned(late); err == nil {
				t.Error("a document from before the reset is accepted")
			}
			if _, err := a.lookAt(t.Context(), key); err == nil {
				t.Error("the old App takes the new Base for its own")
			}
			fresh := b.pair(b.as(caller.Middleware), "phone", owner)
			if fresh.look().Memory().Epoch == before.Memory().Epoch {
				t.Error("the epoch is the old one")
			}
			reply, err := b.as(caller.Console).Do(t.Context(), getSummary(), nil)
			if err != nil || reply.GetSummary().GetLastReset().GetBy() != name {
				t.Errorf("the summary tells of the reset %v, %v", reply.GetSummary().GetLastReset(), err)
			}
		})
	}
}

// A Middleware that was taken over cannot wipe the Base, nor find out what only
// the console is shown.
func TestACompromisedMiddlewareCannotResetTheBase(t *testing.T) {
	x := newAttack(t)
	name := x.helper.keeper.BaseName()
	lift := posture.SignLiftBan(x.phone.look().LiftBanOrder(netip.MustParseAddr("192.0.2.1"), x.phone.challenge()), x.phone.seed)
	old := x.phone.order(name)
	x.advance(posture.ChallengeLife)
	for what, request := range map[string]*systemv1.SystemRequest{
		"as if it stood at the Base":  resetHere(),
		"with nothing":                resetByOrder(nil),
		"with no word at all":         {Verb: &systemv1.SystemRequest_FactoryReset{FactoryReset: &systemv1.FactoryReset{}}},
		"by a viewer":                 resetByOrder(x.viewer.order(name)),
		"by an owner who is gone":     resetByOrder(posture.SignReset(x.phone.look().ResetOrder(name, x.phone.challenge()), x.removed.seed)),
		"by a stranger":               resetByOrder(posture.SignReset(x.phone.look().ResetOrder(name, x.phone.challenge()), newAppSeed())),
		"by an order kept back":       resetByOrder(old),
		"by an order to lift a ban":   resetByOrder(lift),
		"by an order for another one": resetByOrder(x.phone.order("another Base")),
		"a look at the summary":       getSummary(),
	} {
		if _, err := x.attacker.Do(t.Context(), request, nil); err == nil {
			t.Errorf("%s: done", what)
		}
		if _, ordered := factoryreset.Ordered(x.directory); ordered {
			t.Fatalf("%s: the Base will be wiped", what)
		}
	}
	if err := x.world.Is(x.before); err != nil {
		t.Errorf("the machine has changed: %v", err)
	}
	// The attack can win: the owner's own order, fresh, does it.
	if _, err := x.attacker.Do(t.Context(), resetByOrder(x.phone.order(name)), nil); err != nil {
		t.Errorf("the owner cannot: %v", err)
	}
}

func TestAHelperKilledDuringAResetLeavesTheOldBaseOrTheOrder(t *testing.T) {
	for step, want := range map[string]bool{"reset": false, "reset ordered": true} {
		t.Run(step, func(t *testing.T) {
			b := newBase(t)
			b.start()
			a := b.pair(b.as(caller.Middleware), "phone", owner)
			a.mustSubmit(exposeOwnPort)
			b.settled()
			before, key := b.helper.Effective(), b.helper.StateKey()
			b.stop()
			if err := os.WriteFile(filepath.Join(b.directory, seedFile), a.seed.Expose(), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv(resetVariable, "yes")
			b.kill(step, "")
			if _, ordered := factoryreset.Ordered(b.directory); ordered != want {
				t.Fatalf("after a kill before the step after %q, a reset is ordered: %v", step, ordered)
			}
			if want {
				b.nextBoot()
				if b.helper.StateKey().Equal(key) || len(b.helper.Effective().Apps) != 0 {
					t.Errorf("the reset was not finished: %+v", b.helper.Effective())
				}
				return
			}
			b.start()
			b.settled()
			if e := b.helper.Effective(); !posture.NoMoreOpen(e, before) || len(e.Endpoints) != 2 || len(e.Apps) != 1 ||
				!b.helper.StateKey().Equal(key) {
				t.Errorf("in force is %+v, was %+v", b.helper.Effective(), before)
			}
		})
	}
}

// A helper that was ended right after the order restarts the machine; one whose
// boot could not finish the reset does not, for it would go on for ever.
func TestAResetThatCannotBeFinishedDoesNotRestartTheMachineForEver(t *testing.T) {
	for _, failed := range []bool{false, true} {
		b := newBase(t)
		restarts := 0
		b.config.Restart = func(context.Context) error {
			restarts++
			return nil
		}
		tried := func(context.Context) bool { return failed }
		if err := factoryreset.Restart(t.Context(), b.directory, b.config.Restart, tried); err != nil || restarts != 0 {
			t.Errorf("without an order: %d restarts, %v", restarts, err)
		}
		if err := factoryreset.Order(b.directory, factoryreset.Record{}); err != nil {
			t.Fatal(err)
		}
		err := factoryreset.Restart(t.Context(), b.directory, b.config.Restart, tried)
		if (restarts == 0) != failed || (err != nil) != failed {
			t.Errorf("failed %v: %d restarts, %v", failed, restarts, err)
		}
		if err != nil && !strings.Contains(err.Error(), "journalctl -u bitbox-base-reset") {
			t.Errorf("it does not say where to look: %v", err)
		}
	}
}

// A disk that takes no marker leaves everything as it is.
func TestAResetThatCannotBeOrderedChangesNothing(t *testing.T) {
	b := newBase(t)
	b.fail = func(step string) error {
		if step == "reset" {
			return errors.New("the disk is full")
		}
		return nil
	}
	b.start()
	a := b.pair(b.as(caller.Middleware), "phone", owner)
	if _, err := b.as(caller.Console).Do(t.Context(), resetHere(), nil); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeStorage}) {
		t.Errorf("the reset: %v", err)
	}
	a.mustSubmit(exposeOwnPort)
}

func TestTheSummaryTellsWhatIsInForce(t *testing.T) {
	b := newBase(t)
	b.start()
	look := func() *systemv1.Summary {
		t.Helper()
		reply, err := b.as(caller.Console).Do(t.Context(), getSummary(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return reply.GetSummary()
	}
	if s := look(); s.GetOwners() != 0 || s.GetSsh() != nil || len(s.GetApis()) != 0 || s.GetLockdown() || s.GetLastReset() != nil ||
		s.GetNodeName() != b.helper.keeper.BaseName() {
		t.Errorf("of a new Base: %v", s)
	}
	a := b.pair(b.as(caller.Middleware), "phone", owner)
	b.pair(b.as(caller.Middleware), "tablet", basev1.Role_ROLE_VIEWER)
	a.mustSubmit(open)
	b.settled()
	b.advance(10 * time.Minute)
	s := look()
	if s.GetOwners() != 1 || s.GetApps() != 2 || s.GetSsh().GetKeys() != 1 || len(s.GetApis()) != 1 || s.GetApis()[0].GetPort() != 50002 {
		t.Errorf("of an opened Base: %v", s)
	}
	if left := time.Duration(s.GetSsh().GetRemainingMs()) * time.Millisecond; left > 50*time.Minute || left < 45*time.Minute {
		t.Errorf("SSH is on for another %v", left)
	}
	if err := b.restrict(caller.Console, lockdown()); err != nil {
		t.Fatal(err)
	}
	if s := look(); !s.GetLockdown() || s.GetSsh() != nil || len(s.GetApis()) != 0 || !s.GetPairingClosed() {
		t.Errorf("locked down: %v", s)
	}
}
