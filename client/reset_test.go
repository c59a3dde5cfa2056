//go:build linux

package client

import (
	"errors"
	"testing"
)

func TestAFactoryResetTakesTheNameOfTheBase(t *testing.T) {
	h := newHouse(t)
	name := h.look().Effective().NodeName
	for _, typed := range []string{"", "another", name + " "} {
		err := h.session.FactoryReset(t.Context(), func(string) (string, error) { return typed, nil })
		wantKind(t, err, ErrNotApproved)
	}
	away := errors.New("nobody is there")
	if err := h.session.FactoryReset(t.Context(), func(string) (string, error) { return "", away }); !errors.Is(err, away) {
		t.Errorf("nobody typed anything: %v", err)
	}
	h.look() // nothing has happened
	if err := h.session.FactoryReset(t.Context(), func(asked string) (string, error) { return asked, nil }); err != nil {
		t.Fatal(Explain(err))
	}
	if _, err := h.session.Posture(t.Context()); err == nil {
		t.Error("the Base goes on as before")
	}
}
