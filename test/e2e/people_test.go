//go:build linux

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/provisioning"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

const (
	viewer   = basev1.Role_ROLE_VIEWER
	operator = basev1.Role_ROLE_OPERATOR
)

// role returns what an App may do, by the Base's signature and by the Middleware that serves it.
func (b *base) role(owner *app, id string) (signed, served basev1.Role, err error) {
	ctx, cancel := context.WithTimeout(b.t.Context(), callTime)
	defer cancel()
	view, err := owner.Posture(ctx)
	if err != nil {
		return 0, 0, err
	}
	if pending, _, _ := view.Pending(); pending {
		return 0, 0, errors.New("a change is not settled")
	}
	for _, a := range view.Effective().Apps {
		if a.ID == id {
			signed = a.Role
		}
	}
	list, err := owner.Apps.ListApps(ctx, &basev1.ListAppsRequest{})
	for _, a := range list.GetApps() {
		if a.GetId() == id {
			served = a.GetRole()
		}
	}
	return signed, served, err
}

// oneRole waits until both agree, and returns it.
func (b *base) oneRole(owner *app, id string) (role basev1.Role) {
	b.t.Helper()
	b.Until("helper and Middleware agree about a role", func() error {
		signed, served, err := b.role(owner, id)
		if err == nil && (signed != served || signed == 0) {
			err = fmt.Errorf("signed is %v, served %v", signed, served)
		}
		role = signed
		return err
	})
	return role
}

func (b *base) setRole(owner *app, id string, role basev1.Role) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), callTime)
	defer cancel()
	if _, err := owner.SetRole(ctx, id, role, yes, nil); err != nil {
		b.t.Fatalf("make it %v: %s", role, client.Explain(err))
	}
}

// becomes makes an App's role this one, whatever a race before has left in force or on its
// way.
func (b *base) becomes(owner *app, id string, role basev1.Role) {
	b.t.Helper()
	b.Until(fmt.Sprintf("the role is made %v", role), func() error {
		ctx, cancel := context.WithTimeout(b.t.Context(), callTime)
		defer cancel()
		if _, err := owner.SetRole(ctx, id, role, yes, nil); err != nil && !errors.Is(err, client.ErrNoChange) {
			return err
		}
		signed, served, err := b.role(owner, id)
		if err == nil && (signed != role || served != role) {
			err = fmt.Errorf("signed is %v, served %v", signed, served)
		}
		return err
	})
}

// letIn has an owner's App let a new one in, whose words are read to it.
func (b *base) letIn(owner *app, from *stage.Attacker, name string, role basev1.Role) *app {
	b.t.Helper()
	way := from.Way(b.t, b.entry())
	a, err := client.New(client.Options{Dir: b.t.TempDir(), Name: name, NoDiscovery: true})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), callTime)
	defer cancel()
	number, words, matched := make(chan string, 1), make(chan string, 1), make(chan bool, 1)
	type result struct {
		base client.Base
		err  error
	}
	paired := make(chan result, 1)
	go func() {
		r, err := a.Pair(ctx, []string{way.Address}, client.PairOptions{
			Words:     true,
			Requested: func(n string) { number <- n },
			Confirm: func(ctx context.Context, code client.Code) (bool, error) {
				words <- code.Words
				select {
				case yes := <-matched:
					return yes, nil
				case <-ctx.Done():
					return false, ctx.Err()
				}
			},
		})
		paired <- result{r, err}
	}()
	var r result
	acceptance := client.Acceptance{
		Role: role,
		Words: func(ctx context.Context, _ client.NewApp) (string, error) {
			select {
			case shown := <-words:
				return shown, nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		},
		Matched: func() { matched <- true },
	}
	select {
	case acceptance.Number = <-number:
	case r = <-paired:
		b.t.Fatalf("ask to be let in: %s", client.Explain(r.err))
	}
	listed, err := owner.AcceptPairing(ctx, acceptance)
	if err != nil || !listed {
		b.t.Fatalf("let %s in: listed %v: %s", name, listed, client.Explain(err))
	}
	r = <-paired
	if r.err != nil {
		b.t.Fatal(client.Explain(r.err))
	}
	return &app{b.open(a), a, r.base.AppID, way}
}

func TestPeopleOfABootedBaseWithoutADisplay(t *testing.T) {
	t.Parallel()
	b := bootAppliance(t, provisioning.File{NoDisplay: true})
	owner := b.app(b.Attacker(2), "phone", "owner")
	guest := b.app(b.Attacker(3), "tablet", "viewer")

	t.Run("a role is changed", func(t *testing.T) {
		b.t = t
		b.setRole(owner, guest.id, operator)
		if got := b.oneRole(owner, guest.id); got != operator {
			t.Errorf("it is %v", got)
		}
		if _, err := guest.Audit.RunAudit(t.Context(), &basev1.RunAuditRequest{}); err != nil {
			t.Errorf("an operator: %s", client.Explain(err))
		}
		b.cutOff(map[string]chan struct{}{"the stream of an App that was lowered": b.watch(guest)}, func() {
			b.setRole(owner, guest.id, viewer)
		})
		if _, err := guest.Audit.RunAudit(t.Context(), &basev1.RunAuditRequest{}); err == nil {
			t.Error("a viewer runs the audit")
		}
	})
	t.Run("an owner's App lets another in", func(t *testing.T) {
		b.t = t
		third := b.letIn(owner, b.Attacker(4), "laptop", operator)
		if got := b.oneRole(owner, third.id); got != operator {
			t.Errorf("it is %v", got)
		}
		b.works(third.Session, "after it was let in")
		list, err := owner.Apps.ListApps(t.Context(), &basev1.ListAppsRequest{})
		if err != nil {
			t.Fatal(client.Explain(err))
		}
		for _, a := range list.GetApps() {
			if want := b.Attacker(4).V4.String(); a.GetId() == third.id && a.GetLastAddress() != want {
				t.Errorf("it came from %q, not %s", a.GetLastAddress(), want)
			}
		}
	})
	t.Run("kills in the middle of a change of a role", func(t *testing.T) {
		b.t = t
		for i := range 6 {
			from := b.oneRole(owner, guest.id)
			to := operator
			if from == operator {
				to = viewer
			}
			b.killDuring(owner, guest.id, to, time.Duration(i)*40*time.Millisecond, func() {
				b.MustExec("systemctl", "kill", "--signal=SIGKILL", helperUnit, generation.MiddlewareUnit)
			})
			if got := b.oneRole(owner, guest.id); got != from && got != to {
				t.Errorf("it is %v", got)
			}
		}
	})
	t.Run("a power cut in the middle of a change of a role", func(t *testing.T) {
		b.t = t
		from := b.oneRole(owner, guest.id)
		to := operator
		if from == operator {
			to = viewer
		}
		b.killDuring(owner, guest.id, to, 100*time.Millisecond, func() {
			b.Kill()
			b.Start()
			b.ready()
		})
		if got := b.oneRole(owner, guest.id); got != from && got != to {
			t.Errorf("it is %v", got)
		}
	})
	b.t = t
	b.becomes(owner, guest.id, operator)
	b.becomes(owner, guest.id, viewer)
	b.auditIsClean(owner, "at the end")
}

// killDuring changes a role, and kills something a while after the owner has approved.
// Which of the two came first is not known: how the change went is seen afterwards; a try
// that nobody could confirm has to be undone first.
func (b *base) killDuring(owner *app, id string, role basev1.Role, after time.Duration, kill func()) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), callTime)
	defer cancel()
	approved, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := owner.SetRole(ctx, id, role, func([]client.PostureChange) (bool, error) {
			close(approved)
			return true, nil
		}, nil)
		ended <- err
	}()
	select {
	case <-approved:
	case err := <-ended:
		b.t.Fatalf("make it %v: %s", role, client.Explain(err))
	}
	time.Sleep(after) // another moment of the change each time
	kill()
	cancel()
	<-ended // however: nothing more is sent
	b.ready()
}
