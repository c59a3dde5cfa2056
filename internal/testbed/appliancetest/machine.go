package appliancetest

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

// Machine does all that it is told. It implements what a helper needs of one:
// apply.Live, bans.Banner, announce.Network and drift.Auditor.
type Machine struct {
	mu       sync.Mutex
	broken   error
	examined func()
	bans     []bruteforce.Ban
	findings []*basev1.Finding
}

// Break makes the machine refuse each new configuration with an error; nil: it
// takes them again.
func (m *Machine) Break(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = err
}

// WhenExamined has something done whenever a new configuration is examined, before
// it is in force.
func (m *Machine) WhenExamined(do func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.examined = do
}

// Ban bans an address.
func (m *Machine) Ban(ban bruteforce.Ban) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bans = append(m.bans, ban)
}

// Drift gives the next audit something to find.
func (m *Machine) Drift(finding *basev1.Finding) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.findings = append(m.findings, finding)
}

// Bans implements bans.Banner.
func (m *Machine) Bans(context.Context) (bruteforce.Bans, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bruteforce.Bans{List: slices.Clone(m.bans), Current: len(m.bans), Total: len(m.bans)}, nil
}

// Lift implements bans.Banner.
func (m *Machine) Lift(_ context.Context, addr netip.Addr) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := len(m.bans)
	m.bans = slices.DeleteFunc(m.bans, func(b bruteforce.Ban) bool { return b.Addr == addr })
	return len(m.bans) < before, nil
}

// Audit implements drift.Auditor.
func (m *Machine) Audit(context.Context, posture.Effective) []*basev1.Finding {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.findings)
}

// Fix implements drift.Auditor.
func (m *Machine) Fix(_ context.Context, _ posture.Effective, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := len(m.findings)
	m.findings = slices.DeleteFunc(m.findings, func(f *basev1.Finding) bool { return f.GetId() == id })
	if len(m.findings) == before {
		return errors.New("no such finding")
	}
	return nil
}

// Announce implements announce.Network.
func (m *Machine) Announce(context.Context, generation.Announcement) error { return nil }

// Examine implements apply.Live, as do all that follow.
func (m *Machine) Examine(context.Context, string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.examined != nil {
		m.examined()
	}
	return m.broken
}

// Provide has nothing to make.
func (m *Machine) Provide(context.Context, posture.Effective) error { return nil }

// Reload has nobody to tell.
func (m *Machine) Reload(context.Context, string) error { return nil }

// StartSSH starts nothing.
func (m *Machine) StartSSH(context.Context, []sshkey.Key) error { return nil }

// StopSSH stops nothing.
func (m *Machine) StopSSH(context.Context) error { return nil }

// Cut finds no connection.
func (m *Machine) Cut(context.Context, uint16) error { return nil }

// Block finds no port.
func (m *Machine) Block(context.Context, uint16) error { return nil }

// Differences finds none.
func (m *Machine) Differences(context.Context, posture.Effective, generation.Files) ([]string, error) {
	return nil, nil
}

// Units finds nothing.
func (m *Machine) Units(context.Context) ([]string, error) { return nil, nil }
