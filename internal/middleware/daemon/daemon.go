// Package daemon assembles the network-facing part of a Base: it opens the stored state,
// listens, serves the sessions, and follows the messages of the ceremony authority and the
// system helper.
//
// On the appliance it is its own process ([Run]). On a developer's machine internal/devbase
// runs it together with an authority and a console.
package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/boottime"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/api"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/events"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry"
	"github.com/BitBoxSwiss/bitbox-base/internal/nodeclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/announcement"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
)

// Files within the state directory: the pairings, and the history of events.
const (
	registryFile = "middleware.db"
	historyFile  = "events.db"
)

// Config says where to store things, and how long they last.
type Config struct {
	// StateDir holds everything that is stored. It is created with mode 0700 if it does not
	// exist.
	StateDir string
	// Name names a Base that has no name yet; empty: "bitbox-base-" and four digits.
	Name string
	// Logger must be set.
	Logger *slog.Logger
	// Random nil means the system's generator.
	Random io.Reader
	// PendingTime and SessionTime are the protocol's if they are zero.
	PendingTime time.Duration
	SessionTime time.Duration
}

// Parts are what the Middleware works with, wherever they come from.
type Parts struct {
	// Entry is the listener for Apps. Stop closes it.
	Entry net.Listener
	// Proxied: each connection begins with a PROXY line that tells the client's address.
	Proxied bool
	// Limits of connections; zero: admission.DefaultLimits.
	Limits admission.Limits
	// Authority is the ceremony authority.
	Authority pairing.Client
	// Machine reports what the Middleware cannot see of the machine.
	Machine api.Machine
	// Helper is the system helper; nil: there is none, and requests that need it are refused.
	Helper api.Helper
	// Node reaches bitbox-node; nil: there is none.
	Node *nodeclient.Client
	// Announcer starts to announce the Base on the local network; nil: it is not announced.
	Announcer func(announcement.TXT) (Announcer, error)
}

// Announcer announces the Base on the local network.
type Announcer interface {
	// Update replaces the announced record. It never blocks.
	Update(announcement.TXT)
	Close() error
}

// Middleware is the network-facing side of a Base. Stop ends it.
type Middleware struct {
	config    Config
	parts     Parts
	db        *state.DB
	history   *state.DB // nil: it cannot be used
	events    *events.Hub
	registry  *registry.Registry
	attempts  *events.Attempts
	admission *admission.Listener
	server    *api.Server
	announcer Announcer // nil: not announced
	nonce     [announcement.NonceSize]byte

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	failed  chan error // gets the first part that ended by itself
	stop    sync.Once
	stopped error
}

// Open opens what is stored. Nothing runs before Start; Stop must follow.
func Open(config Config) (*Middleware, error) {
	m := &Middleware{config: config, failed: make(chan error, 1)}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	if err := m.open(); err != nil {
		return nil, errors.Join(err, m.Stop())
	}
	return m, nil
}

// prepareStateDir creates the directory, or refuses one that is not private.
func prepareStateDir(dir string) error {
	if dir == "" {
		return reason.New("no state directory is given")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return reason.Errorf("make the state directory: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return reason.Errorf("read the state directory: %w", err)
	}
	if !info.IsDir() {
		return reason.Errorf("the state directory %s is not a directory (or a link to one); name the directory itself", dir)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return reason.Errorf("the state directory %s is open to others (mode %04o); find out which users could read it, then: chmod 700 %s", dir, mode, dir)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
		return reason.Errorf("the state directory %s belongs to user %d, not to the user who starts this Base (%d)", dir, owner.Uid, os.Geteuid())
	}
	return nil
}

func (m *Middleware) open() (err error) {
	if err := prepareStateDir(m.config.StateDir); err != nil {
		return err
	}
	m.db, err = state.Open(filepath.Join(m.config.StateDir, registryFile),
		state.Options{Kind: registry.StateKind, Schema: registry.StateSchema, Create: true})
	if err != nil {
		return err
	}
	m.history, err = state.Open(filepath.Join(m.config.StateDir, historyFile),
		state.Options{Kind: events.HistoryKind, Schema: events.HistorySchema, Create: true})
	if err != nil { // an owner can connect all the same
		m.config.Logger.Error("the history of events cannot be used", "audit", true, "error", err)
	}
	m.events = events.Open(m.history, m.config.Logger)
	m.registry, err = registry.Open(registry.Config{
		DB:          m.db,
		Events:      m.events,
		Logger:      m.config.Logger,
		Random:      m.config.Random,
		Name:        m.config.Name,
		PendingTime: m.config.PendingTime,
		SessionTime: m.config.SessionTime,
	})
	return err
}

// Start begins to serve. After an error the caller must still call Stop.
func (m *Middleware) Start(parts Parts) error {
	if parts.Limits == (admission.Limits{}) {
		parts.Limits = admission.DefaultLimits()
	}
	m.parts = parts
	for _, step := range []func() error{m.learn, m.listen, m.announce, m.run} {
		if err := step(); err != nil {
			if m.admission == nil {
				err = errors.Join(err, parts.Entry.Close())
			}
			return err
		}
	}
	return nil
}

// learn compares the stored state with the reports of the authority and the helper, before the
// first session.
func (m *Middleware) learn() error {
	bootID, err := boottime.ID()
	if err != nil {
		m.config.Logger.Warn("cannot tell whether the machine was rebooted", "error", err)
	}
	m.events.PublishStart(bootID)
	if err := m.registry.Connect(m.ctx, m.parts.Authority); err != nil || m.parts.Helper == nil {
		return err
	}
	return m.registry.LearnRoles(m.ctx, m.parts.Helper)
}

// listen opens the listener for Apps.
func (m *Middleware) listen() (err error) {
	m.attempts = m.events.Attempts(m.parts.Authority)
	m.admission, err = admission.Listen(m.parts.Entry, admission.Config{
		Limits:    m.parts.Limits,
		Static:    m.registry.Static(),
		Registry:  m.registry,
		Authority: m.attempts,
		Logger:    m.config.Logger,
		Random:    m.config.Random,
		Proxied:   m.parts.Proxied,
	})
	return err
}

// announce announces the Base on the network, if that is wanted.
func (m *Middleware) announce() (err error) {
	if m.parts.Announcer == nil {
		return nil
	}
	random := m.config.Random
	if random == nil {
		random = rand.Reader
	}
	if _, err := io.ReadFull(random, m.nonce[:]); err != nil {
		return reason.Errorf("read %d random bytes: %w", len(m.nonce), err)
	}
	m.announcer, err = m.parts.Announcer(m.txt(false))
	return err
}

func (m *Middleware) txt(pairingOpen bool) announcement.TXT {
	return announcement.TXT{
		Version:     noiseconn.ProtocolVersion,
		Nonce:       m.nonce,
		ID:          noiseconn.DiscoveryID(m.registry.DiscoveryKey(), m.nonce[:]),
		PairingOpen: pairingOpen,
	}
}

// run starts the goroutines that run until Stop.
func (m *Middleware) run() (err error) {
	m.server, err = api.New(api.Config{
		Registry: m.registry,
		Events:   m.events,
		Window:   m.parts.Authority,
		Machine:  m.parts.Machine,
		Helper:   m.parts.Helper,
		Node:     m.parts.Node,
		StateDir: m.config.StateDir,
		Logger:   m.config.Logger,
	})
	if err != nil {
		return err
	}
	m.Go("serve Apps", func(context.Context) error { return m.server.Serve(m.admission) })
	m.running.Go(func() { m.server.KeepMeasuring(m.ctx) })
	m.Go("watch the authority", m.follow)
	if m.parts.Helper != nil {
		m.running.Go(func() { m.events.Follow(m.ctx, m.parts.Helper, m.registry, m.server.EntryReloaded) })
		m.running.Go(func() { m.server.KeepRedialling(m.ctx) })
	}
	if m.parts.Node != nil {
		m.running.Go(func() { m.events.FollowNode(m.ctx, m.parts.Node) })
	}
	return nil
}

// Go runs another part, until Stop ends its context. A part that ends by itself ends the Base
// (Failed).
func (m *Middleware) Go(what string, part func(context.Context) error) {
	m.running.Go(func() {
		err := part(m.ctx)
		if m.ctx.Err() != nil {
			return
		}
		select {
		case m.failed <- reason.Errorf("%s: ended by itself: %w", what, err):
		default:
		}
	})
}

// Context ends when Stop begins.
func (m *Middleware) Context() context.Context { return m.ctx }

// Failed gives the failure of the first part that ended by itself.
func (m *Middleware) Failed() <-chan error { return m.failed }

// Addr returns the address for Apps.
func (m *Middleware) Addr() net.Addr { return m.admission.Addr() }

// Name returns the name of the Base.
func (m *Middleware) Name() string { return m.registry.Name() }

// PublicKey returns the Base's public static key.
func (m *Middleware) PublicKey() noiseconn.PublicKey { return m.registry.PublicKey() }

// Stop ends the Middleware: it notifies streams, gives calls a moment, and closes what is stored.
func (m *Middleware) Stop() error {
	m.stop.Do(func() { m.stopped = m.end() })
	return m.stopped
}

func (m *Middleware) end() error {
	var errs []error
	m.cancel()
	if m.server != nil {
		m.server.Stop()
	}
	if m.announcer != nil {
		errs = append(errs, m.announcer.Close())
	}
	if m.admission != nil {
		if err := m.admission.Close(); !errors.Is(err, net.ErrClosed) && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	m.running.Wait()
	if m.registry != nil {
		m.registry.Close()
	}
	if m.events != nil {
		m.events.Close()
	}
	for _, db := range []*state.DB{m.db, m.history} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}
