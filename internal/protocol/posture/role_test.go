package posture

import (
	"errors"
	"slices"
	"strings"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

const (
	viewer   = basev1.Role_ROLE_VIEWER
	operator = basev1.Role_ROLE_OPERATOR
)

// setRole changes the role of an App by its name.
func setRole(name string, role basev1.Role) func(*Posture) {
	return func(p *Posture) {
		i := slices.IndexFunc(p.Apps, func(a App) bool { return a.Name == name })
		p.Apps[i].Role = role
	}
}

// roleOf is what an App may do now, by the Base and by an App that looks at it.
func (d *device) roleOf(name string) basev1.Role {
	d.t.Helper()
	var roles []basev1.Role
	for _, e := range []Effective{d.ledger.Effective(), d.look().Effective()} {
		i := slices.IndexFunc(e.Apps, func(a App) bool { return a.Name == name })
		roles = append(roles, e.Apps[i].Role)
	}
	if roles[0] != roles[1] {
		d.t.Fatalf("%s is %v at the Base, and %v for an App that looks", name, roles[0], roles[1])
	}
	return roles[0]
}

func TestARaisedRoleHoldsOnceItIsConfirmedAndALoweredOneAtOnce(t *testing.T) {
	d := newDevice(t)
	alice := d.owner("alice")
	bob := d.pair("bob", viewer)
	carol := d.owner("carol")
	wants := func(when string, bob, carol basev1.Role) {
		t.Helper()
		if got := [2]basev1.Role{d.roleOf("bob"), d.roleOf("carol")}; got != [2]basev1.Role{bob, carol} {
			t.Errorf("%s: bob is %v and carol %v", when, got[0], got[1])
		}
	}
	both := func(p *Posture) { setRole("bob", roleOwner)(p); setRole("carol", operator)(p) }

	doc := d.draft(both)
	doc.Try = true
	d.must(d.ledger.Submit(SignDocument(doc, alice), d.now))
	wants("while it is applied", viewer, operator)
	d.must(d.ledger.Applied(d.ledger.chain.revision(), d.now))
	wants("while it is tried", viewer, operator)
	// Neither orders anything: one is not raised yet, the other is lowered already.
	for name, seed := range map[string]AppSeed{"bob": bob, "carol": carol} {
		order := d.look().ResetOrder(d.ledger.Effective().NodeName, d.challenge())
		if _, _, err := d.ledger.Reset(SignReset(order, seed), d.now); !errors.Is(err, ErrNotOwner) {
			t.Errorf("%s wipes the Base while the change is tried: %v", name, err)
		}
	}
	d.pass(TryTime)
	wants("after the undo", viewer, roleOwner)

	d.try(alice, both)
	confirmation := SignConfirmation(d.look().Confirmation(d.challenge()), alice)
	d.must(d.ledger.Confirm(confirmation, true, d.now))
	wants("after the confirmation", roleOwner, operator)
	d.change(bob, func(p *Posture) { p.NodeName = "bob's" })
	if _, err := d.ledger.Submit(SignDocument(d.draft(func(*Posture) {}), carol), d.now); !errors.Is(err, ErrNotOwner) {
		t.Errorf("an owner who was lowered signs: %v", err)
	}
	d.restart()
	wants("after a restart", roleOwner, operator)
}

func TestACrashDuringATryOfARoleLeavesTheOldOne(t *testing.T) {
	d := newDevice(t)
	alice := d.owner("alice")
	d.pair("bob", viewer)
	d.try(alice, setRole("bob", roleOwner))
	d.restart()
	if got := d.roleOf("bob"); got != viewer {
		t.Errorf("bob is %v", got)
	}
	d.change(alice, setRole("bob", roleOwner))
	d.reboot()
	if got := d.roleOf("bob"); got != roleOwner {
		t.Errorf("bob is %v", got)
	}
}

func TestRaisingARoleIsAnOpening(t *testing.T) {
	d := newDevice(t)
	d.owner("alice")
	d.pair("bob", viewer)
	for role, opens := range map[basev1.Role]bool{operator: true, roleOwner: true} {
		changes := d.look().Changes(d.draft(setRole("bob", role)))
		if len(changes) != 1 || changes[0].Field != "app.role" || changes[0].Opens != opens ||
			!strings.Contains(changes[0].Text, "instead of viewer") {
			t.Errorf("%v: %+v", role, changes)
		}
	}
}

// Going back to an earlier revision does not bring a role back that was taken.
func TestGoingBackKeepsTheRolesOfToday(t *testing.T) {
	d := newDevice(t)
	alice := d.owner("alice")
	d.owner("bob")
	d.change(alice, func(p *Posture) { p.NodeName = "good" })
	good := d.ledger.chain.revision()
	d.change(alice, func(p *Posture) { setRole("bob", viewer)(p); p.NodeName = "bad" })
	back, err := d.look().Back(good)
	if err != nil {
		t.Fatal(err)
	}
	d.change(alice, func(p *Posture) { *p = back })
	if got := d.roleOf("bob"); got != viewer || d.ledger.Effective().NodeName != "good" {
		t.Errorf("bob is %v again", got)
	}
}

func TestAnOwnerStepsDownOnlyIfAnotherIsLeft(t *testing.T) {
	d := newDevice(t)
	alice := d.owner("alice")
	d.pair("bob", viewer)
	if _, err := d.ledger.Submit(SignDocument(d.draft(setRole("alice", operator)), alice), d.now); !errors.Is(err, ErrLastOwner) {
		t.Errorf("the last owner has stepped down: %v", err)
	}
	d.change(alice, setRole("bob", roleOwner))
	d.change(alice, setRole("alice", operator))
	if got := d.roleOf("alice"); got != operator {
		t.Errorf("alice is %v", got)
	}
}
