// Package machinetest is the machine of a helper of tests, as the helper sees one: servers that read
// their configuration, bans, findings, and software that can be replaced. All that it does is in a
// directory and in memory. Its systemd is in package systemdtest.
package machinetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/apply"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/turns"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/wallets"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

// Machine is a machine whose servers keep what they have read in files, so that it outlives a
// helper that is killed, as real servers do. It implements what a helper needs of one:
// apply.Live, bans.Banner, announce.Network, wallets.Sockets and drift.Auditor.
type Machine struct {
	// Late: a reload that fails has done its work nevertheless. Lie: a reload says that it has
	// worked, and does nothing. Neither changes while something is applied.
	Late, Lie bool
	// HeldBans and HeldAudit hold who asks for bans, or for an audit.
	HeldBans, HeldAudit Hold

	closing   turns.Precedence
	directory string // the helper's; the servers' is below it

	// files is held while the servers' files are read or replaced: a test looks while a helper applies.
	files sync.Mutex

	mu        sync.Mutex
	fail      map[string]error // by the action, such as "reload UNIT"
	hangs     string           // an action that returns only when its time is up
	hanging   bool             // it was begun
	cut       []uint16
	kept      []posture.Networks
	admitted  []sshkey.Key // that sshd may have let in since it was started
	restarts  int          // see SSHRestarts
	listening []generation.Upstream
	connected []wallets.Connection
	lifted    []netip.Addr
	bans      []bruteforce.Ban
	findings  []*basev1.Finding
	told      []generation.Announcement
	disks     []*basev1.Disk
	broken    error
	examined  func()
	// examining lets one part call examined at a time.
	examining sync.Mutex
}

// New returns the machine of a helper with this directory. Its servers go on where another one's
// of the same directory have ended.
func New(directory string) *Machine {
	m := &Machine{directory: directory, fail: map[string]error{}}
	if err := os.MkdirAll(m.path(""), 0o755); err != nil {
		panic(err)
	}
	return m
}

func (m *Machine) path(name string) string { return filepath.Join(m.directory, "servers", name) }

// Fail makes an action fail, such as "reload UNIT"; nil: it works again.
func (m *Machine) Fail(action string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail[action] = err
}

func (m *Machine) failure(action string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fail[action]
}

// Provide implements apply.Live.
func (m *Machine) Provide(context.Context, posture.Effective) error { return m.failure("provide") }

// hang does not return for an action that hangs, until its time is up.
func (m *Machine) hang(ctx context.Context, action string) error {
	m.mu.Lock()
	hangs := m.hangs == action
	m.hanging = m.hanging || hangs
	m.mu.Unlock()
	if !hangs {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

// Hang has an action, such as "examine UNIT", not return until its time is up; "": none.
func (m *Machine) Hang(action string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hangs, m.hanging = action, false
}

// Hanging tells whether the action that hangs was begun.
func (m *Machine) Hanging() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hanging
}

// Break makes the machine refuse each new configuration with an error; nil: it takes them again.
func (m *Machine) Break(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = err
}

// WhenExamined has something done whenever a part of a new configuration is examined, before it is
// in force; nil: nothing.
func (m *Machine) WhenExamined(do func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.examined = do
}

// Examine implements apply.Live.
func (m *Machine) Examine(ctx context.Context, unit string) error {
	m.mu.Lock()
	examined, broken := m.examined, m.broken
	m.mu.Unlock()
	if examined != nil {
		m.examining.Lock()
		examined()
		m.examining.Unlock()
	}
	return errors.Join(m.hang(ctx, "examine "+unit), m.failure("examine "+unit), broken)
}

// Reload implements apply.Live.
func (m *Machine) Reload(ctx context.Context, unit string) error {
	if err := m.hang(ctx, "reload "+unit); err != nil {
		return err
	}
	failure := m.failure("reload " + unit)
	if m.Lie || failure != nil && !m.Late {
		return failure
	}
	read := map[string]string{}
	for name, content := range readTree(filepath.Join(m.directory, "current")) {
		if p := apply.Parts[slices.IndexFunc(apply.Parts, func(p apply.Part) bool { return p.Unit == unit })]; p.Has(name) {
			read[name] = content
		}
	}
	m.replace(unit, read)
	if unit == generation.FirewallUnit {
		m.replace("blocked", nil)
	}
	return failure
}

// replace makes the folder hold files, each whole.
func (m *Machine) replace(folder string, files map[string]string) {
	m.files.Lock()
	defer m.files.Unlock()
	for name := range readTree(m.path(folder)) {
		if _, stays := files[name]; !stays {
			_ = os.Remove(filepath.Join(m.path(folder), name))
		}
	}
	for name, content := range files {
		path := filepath.Join(m.path(folder), name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path+"~", []byte(content), 0o644),
			os.Rename(path+"~", path)); err != nil {
			panic(err)
		}
	}
}

// read returns the files in the folder.
func (m *Machine) read(folder string) map[string]string {
	m.files.Lock()
	defer m.files.Unlock()
	return readTree(m.path(folder))
}

// AdmitSSH implements apply.Live.
func (m *Machine) AdmitSSH(keys []sshkey.Key) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.admitted = append(m.admitted, keys...)
	return nil
}

// SSHRestarts is how often sshd was stopped because it may have let in a key that it no longer may.
func (m *Machine) SSHRestarts() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.restarts
}

// StartSSH implements apply.Live.
func (m *Machine) StartSSH(_ context.Context, keys []sshkey.Key) error {
	if err := m.failure("start ssh"); err != nil {
		return err
	}
	m.mu.Lock()
	if slices.ContainsFunc(m.admitted, func(key sshkey.Key) bool { return !slices.Contains(keys, key) }) {
		m.restarts++
	}
	m.admitted = slices.Clone(keys)
	m.mu.Unlock()
	m.replace("ssh", map[string]string{"keys": sshaccess.RenderAuthorizedKeys(keys)})
	return nil
}

// StopSSH implements apply.Live.
func (m *Machine) StopSSH(context.Context) error {
	if err := m.failure("stop ssh"); err != nil {
		return err
	}
	m.mu.Lock()
	m.admitted = nil
	m.mu.Unlock()
	m.replace("ssh", nil)
	return nil
}

// Closing implements apply.Live.
func (m *Machine) Closing() (end func()) { return m.closing.Take() }

// AwaitClosing waits until nothing is being closed.
func (m *Machine) AwaitClosing(ctx context.Context) error { return m.closing.Await(ctx) }

// Cut implements apply.Live.
func (m *Machine) Cut(_ context.Context, port uint16, except posture.Networks) error {
	if err := m.failure("cut"); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut, m.kept = append(m.cut, port), append(m.kept, except)
	return nil
}

// Kept lists the networks whose connections were not ended, by cut, and forgets them.
func (m *Machine) Kept() []posture.Networks {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer func() { m.kept = nil }()
	return m.kept
}

// Cuts lists the ports at which connections were ended, and forgets them.
func (m *Machine) Cuts() []uint16 {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer func() { m.cut = nil }()
	return m.cut
}

// Listening has a program listen there.
func (m *Machine) Listening(upstream generation.Upstream) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.listening = append(m.listening, upstream)
}

// Connected has wallets connected.
func (m *Machine) Connected(all ...wallets.Connection) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.connected = all
}

// Listens implements wallets.Sockets.
func (m *Machine) Listens(upstream generation.Upstream) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.listening, upstream), nil
}

// Connections implements wallets.Sockets.
func (m *Machine) Connections(uint16) ([]wallets.Connection, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.connected, nil
}

// Block implements apply.Live.
func (m *Machine) Block(_ context.Context, port uint16) error {
	blocked := m.read("blocked")
	blocked[fmt.Sprint(port)] = ""
	m.replace("blocked", blocked)
	return nil
}

// IsBlocked tells whether nobody reaches a port until the rules are read again.
func (m *Machine) IsBlocked(port uint16) bool {
	_, blocked := m.read("blocked")[fmt.Sprint(port)]
	return blocked
}

// LetsIn tells whether the packet filter lets packets to a port in.
func (m *Machine) LetsIn(port uint16) bool {
	rules := m.read(generation.FirewallUnit)[generation.IPv4Rules]
	return strings.Contains(rules, fmt.Sprintf("--dport %d ", port)) && !m.IsBlocked(port)
}

// Differences implements apply.Live.
func (m *Machine) Differences(_ context.Context, e posture.Effective, files generation.Files) ([]string, error) {
	if err := m.failure("verify"); err != nil {
		return []string{err.Error()}, nil
	}
	m.files.Lock()
	defer m.files.Unlock()
	return m.differences(e, files), nil
}

// differences says how the servers differ from e. The caller holds files.
func (m *Machine) differences(e posture.Effective, files generation.Files) []string {
	var list []string
	for _, p := range apply.Parts {
		if p.Unit == "" {
			continue
		}
		want := map[string]string{}
		for name, content := range files {
			if p.Has(name) {
				want[name] = content
			}
		}
		if !maps.Equal(want, readTree(m.path(p.Unit))) {
			list = append(list, p.Unit+" has read something else")
		}
	}
	keys, on := readTree(m.path("ssh"))["keys"]
	switch {
	case on != (e.SSH != nil):
		list = append(list, fmt.Sprintf("ssh is on: %v", on))
	case on && keys != sshaccess.RenderAuthorizedKeys(e.SSH.Keys):
		list = append(list, "ssh takes other keys")
	}
	return list
}

// Is tells whether the servers are wholly as e says; nil: they are.
func (m *Machine) Is(e posture.Effective) error {
	files, err := generation.Render(e)
	if err != nil {
		return err
	}
	m.files.Lock()
	defer m.files.Unlock()
	if differences := m.differences(e, files); len(differences) > 0 {
		return errors.New(strings.Join(differences, "; "))
	}
	return nil
}

// Between tells whether each server is as one of two says, so that none is more
// open than both; nil: each is.
func (m *Machine) Between(a, b posture.Effective) error {
	filesA, errA := generation.Render(a)
	filesB, errB := generation.Render(b)
	if err := errors.Join(errA, errB); err != nil {
		return err
	}
	m.files.Lock()
	defer m.files.Unlock()
	other := m.differences(b, filesB)
	for _, difference := range m.differences(a, filesA) {
		if slices.Contains(other, difference) {
			return fmt.Errorf("neither as before nor as after: %s", difference)
		}
	}
	return nil
}

// Ban bans an address.
func (m *Machine) Ban(ban bruteforce.Ban) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bans = append(m.bans, ban)
}

// Bans implements bans.Banner.
func (m *Machine) Bans(context.Context) (bruteforce.Bans, error) {
	m.HeldBans.pass()
	m.mu.Lock()
	defer m.mu.Unlock()
	return bruteforce.Bans{List: slices.Clone(m.bans), Current: len(m.bans), Total: len(m.bans)}, m.fail["bans"]
}

// Lift implements bans.Banner.
func (m *Machine) Lift(_ context.Context, addr netip.Addr) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := len(m.bans)
	m.bans = slices.DeleteFunc(m.bans, func(b bruteforce.Ban) bool { return b.Addr == addr })
	m.lifted = append(m.lifted, addr)
	return len(m.bans) < before, nil
}

// Lifted lists what was lifted.
func (m *Machine) Lifted() []netip.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.lifted)
}

// Drift gives the next audit something to find.
func (m *Machine) Drift(finding *basev1.Finding) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.findings = append(m.findings, finding)
}

// Audit implements drift.Auditor.
func (m *Machine) Audit(context.Context, posture.Effective) []*basev1.Finding {
	m.HeldAudit.pass()
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

// Units implements drift.Auditor: nothing is wrong.
func (m *Machine) Units(context.Context) ([]string, error) { return nil, nil }

// Told lists what the local network was told.
func (m *Machine) Told() []generation.Announcement {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.told)
}

// Announce implements announce.Network.
func (m *Machine) Announce(_ context.Context, a generation.Announcement) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.told = append(m.told, a)
	return m.fail["announce"]
}

// Hold is a place at which a test can hold one goroutine.
type Hold struct {
	mu                sync.Mutex
	entered, released chan struct{} // nil: nobody is held
}

// Hold holds the next one. entered is closed when it is there.
func (h *Hold) Hold() (entered <-chan struct{}, release func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.entered, h.released = make(chan struct{}), make(chan struct{})
	return h.entered, sync.OnceFunc(func() { close(h.released) })
}

func (h *Hold) pass() {
	h.mu.Lock()
	entered, released := h.entered, h.released
	h.entered = nil
	h.mu.Unlock()
	if entered != nil {
		close(entered)
		<-released
	}
}

// readTree reads all files below a directory; none if there is none. Nobody replaces one meanwhile.
func readTree(root string) map[string]string {
	files := map[string]string{}
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return files
	}
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasSuffix(path, "~") {
			return err
		}
		content, err := os.ReadFile(path)
		name, _ := filepath.Rel(root, path)
		files[name] = string(content)
		return err
	})
	if err != nil {
		panic(err)
	}
	return files
}
