//go:build linux

package client

import (
	"errors"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

func TestAFactoryResetTakesTheNameOfTheBase(t *testing.T) {
	h := newHouse(t)
	name := h.look().Effective().NodeName
	for _, typed := range []string{"", "another", name + " "} {
		err := h.session.FactoryReset(t.Context(), func(string) (ResetAnswer, error) { return ResetAnswer{Typed: typed}, nil })
		wantKind(t, err, ErrNotApproved)
	}
	away := errors.New("no answer")
	if err := h.session.FactoryReset(t.Context(), func(string) (ResetAnswer, error) {
		return ResetAnswer{Typed: ""}, away
	}); !errors.Is(err, away) {
		t.Errorf("nobody typed anything: %v", err)
	}
	h.look() // nothing has happened
	if err := h.session.FactoryReset(t.Context(), func(asked string) (ResetAnswer, error) {
		return ResetAnswer{Typed: asked}, nil
	}); err != nil {
		t.Fatal(Explain(err))
	}
	if _, err := h.session.Posture(t.Context()); err == nil {
		t.Error("the Base runs as before")
	}
	if base, err := h.owner.Base(""); err != nil || base.State != Reset || base.State.Usable() {
		t.Errorf("after the reset the pairing is %q, %v", base.State, err)
	}
	_, err := h.owner.Open("")
	wantKind(t, err, ErrPairAgain)
}

// A pairing with the Base that was reset gets its name back, without a `forget`.
func TestANewPairingReplacesOneWithAResetBase(t *testing.T) {
	old := &stored{Name: "Home", State: Reset, BaseKey: []byte{1}}
	fresh := &stored{Name: "Home", State: Pending, BaseKey: []byte{2}}
	if name := freeName(fresh, map[string]*stored{"old": old}); name != "Home" || !replaces(fresh, old) {
		t.Errorf("it is called %q", name)
	}
	old.State = Active
	if name := freeName(fresh, map[string]*stored{"old": old}); name == "Home" || replaces(fresh, old) {
		t.Errorf("it takes the place of one that can be used, as %q", name)
	}
}

// The App remembers the role that the Base reported last, not that of the pairing.
func TestTheAppRemembersTheRoleThatTheBaseReportedLast(t *testing.T) {
	h := newHouse(t)
	phone, session := h.pair("Phone", basev1.Role_ROLE_OPERATOR)
	base, err := phone.Base("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.session.SetRole(t.Context(), base.AppID, basev1.Role_ROLE_VIEWER, approve, nil); err != nil {
		t.Fatal(Explain(err))
	}
	if _, err := session.Info.GetInfo(t.Context(), &basev1.GetInfoRequest{}); err != nil {
		t.Fatal(Explain(err))
	}
	now, err := phone.Base("")
	if err != nil || now.Role != basev1.Role_ROLE_VIEWER || !now.RoleAt.After(base.RoleAt) {
		t.Errorf("%v as of %v, %v; it was %v as of %v", now.Role, now.RoleAt, err, base.Role, base.RoleAt)
	}
}

// Even if no posture lists the App, nothing is taken away without asking.
func TestRevokingAsksEvenIfNoPostureChanges(t *testing.T) {
	h := newHouse(t)
	phone, _ := h.pair("Phone", basev1.Role_ROLE_OPERATOR)
	base, err := phone.Base("")
	if err != nil {
		t.Fatal(err)
	}
	no := func([]PostureChange) (bool, error) { return false, nil }
	if _, err := h.session.takeKey(t.Context(), base.AppID, approve); err != nil {
		t.Fatal(Explain(err))
	}
	_, err = h.session.RevokeApp(t.Context(), base.AppID, no)
	wantKind(t, err, ErrNotApproved)
}
