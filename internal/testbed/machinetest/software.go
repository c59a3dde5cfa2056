package machinetest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

// FirstVersion is what an appliance has at first, and Architecture what it is.
const (
	FirstVersion = "1.0"
	Architecture = "amd64"
)

// Software is what is installed on an appliance: nothing but a version. It implements
// update.Host; a package is a text that says its name, version and architecture. The
// real update.Receiver and update.Installer work with it.
type Software struct {
	store   update.Store
	working sync.WaitGroup

	mu sync.Mutex
	// restarts ends all connections.
	restarts func()
	version  string
	unwell   string
	forged   string
	// board is nil until BecomeImage.
	board *board
}

// signingSeed signs releases for the appliances of tests, and makes nobody's real ones.
func signingSeed(b byte) release.SigningSeed {
	seed, err := release.ParseSigningSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
	if err != nil {
		panic(err)
	}
	return seed
}

// Release returns a release file, signed by the maker of releases or, if forged, by somebody
// else. It has the given length at least.
func Release(version, architecture string, length int, forged bool) ([]byte, error) {
	deb := fmt.Appendf(nil, "%s %s %s ", update.PackageName, version, architecture)
	deb = append(deb, bytes.Repeat([]byte("."), max(0, length-len(deb)))...)
	seed := signingSeed(1)
	if forged {
		seed = signingSeed(2)
	}
	header, err := release.Sign(release.Header{Version: version, Architecture: architecture, Size: uint64(len(deb)), Hash: sha256.Sum256(deb)},
		seed)
	return append(header, deb...), err
}

// NewSoftware returns the software of the helper with a directory, and what takes releases for it.
func NewSoftware(directory string) (*Software, *update.Receiver, error) {
	directory = filepath.Join(directory, "updates")
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, nil, err
	}
	s := &Software{store: update.NewStore(directory), version: FirstVersion, restarts: func() {}}
	receiver, err := update.NewReceiver(s.store, s, release.PublicKey(signingSeed(1)))
	return s, receiver, err
}

// OnRestart has something done when the Base is restarted by an update.
func (s *Software) OnRestart(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restarts = do
}

func (s *Software) restart() {
	s.mu.Lock()
	restarts := s.restarts
	s.mu.Unlock()
	restarts()
}

// Wait waits for an update that is under way.
func (s *Software) Wait() { s.working.Wait() }

// Sicken makes a version one with which the Base is not well.
func (s *Software) Sicken(version string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unwell = version
}

// Uploads lists what the Base holds of uploads that are not complete.
func (s *Software) Uploads() []string {
	names, _ := filepath.Glob(filepath.Join(filepath.Dir(s.store.Upgrader()), "incoming*")) // its only error is a bad pattern
	return names
}

// Architecture implements update.Machine, as do the next four.
func (s *Software) Architecture(context.Context) (string, error) { return Architecture, nil }

// Installed is the version.
func (s *Software) Installed(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runsLocked(), nil
}

func (s *Software) runsLocked() string {
	if s.board != nil {
		return s.board.slots.Running
	}
	return s.version
}

// IsImage is false until BecomeImage.
func (s *Software) IsImage() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.board != nil
}

// Describe reads the text.
func (s *Software) Describe(_ context.Context, path string) (update.Package, error) {
	b, err := os.ReadFile(path)
	fields := strings.Fields(string(b))
	if err != nil || len(fields) < 3 {
		return update.Package{}, errors.Join(errors.New("this is no package"), err)
	}
	return update.Package{Name: fields[0], Version: fields[1], Architecture: fields[2]}, nil
}

// Start runs the installer.
func (s *Software) Start(context.Context) error {
	if s.IsImage() {
		s.working.Go(func() { s.live(context.Background()) })
		return nil
	}
	installer := &update.Installer{
		Store: s.store, Host: s, Key: release.PublicKey(signingSeed(1)),
		Prove: time.Second, Calm: 20 * time.Millisecond, Look: 5 * time.Millisecond,
	}
	s.working.Go(func() { _ = installer.Run(context.Background()) }) // its journal says how it went
	return nil
}

// Occupy implements update.Host, as do all that follow.
func (s *Software) Occupy(context.Context) (func(), error) { return func() {}, nil }

// ReadOnly is false.
func (s *Software) ReadOnly() (bool, error) { return false, nil }

// Remount has nothing to do.
func (s *Software) Remount(context.Context, bool) error { return nil }

// Pack writes the text.
func (s *Software) Pack(_ context.Context, path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return os.WriteFile(path, fmt.Appendf(nil, "%s %s %s ", update.PackageName, s.version, Architecture), 0o600)
}

// Install takes the version over.
func (s *Software) Install(ctx context.Context, path string) error {
	is, err := s.Describe(ctx, path)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version = is.Version
	return nil
}

// Restart ends all connections.
func (s *Software) Restart(context.Context) error {
	s.restart()
	return nil
}

// Reread has nothing to do.
func (s *Software) Reread(context.Context) error { return nil }

// Look finds the version that was sickened.
func (s *Software) Look(context.Context) (update.Condition, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := update.Condition{Processes: s.runsLocked()}
	if s.runsLocked() == s.unwell {
		c.Down = append(c.Down, "the Middleware is failed")
	}
	return c, nil
}
