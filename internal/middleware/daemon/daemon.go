// Package daemon puts a Base together from its parts.
//
// On the appliance the parts are processes of their own, with walls between
// them (docs/architecture.md). Start runs all of them in one process, for a developer's machine: no
// root, and nothing touched outside the state directory. The interfaces between the
// parts are the same.
package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/boottime"
	"github.com/BitBoxSwiss/bitbox-base/internal/console"
	"github.com/BitBoxSwiss/bitbox-base/internal/discovery"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/api"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/events"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
)

// DefaultListen is where a Base listens: port 8845 on all addresses.
const DefaultListen = ":8845"

// Files of the Middleware within the state directory: its state, and the history of events.
const (
	middlewareFile = "middleware.db"
	historyFile    = "events.db"
)

// controlSocket is where the commands `bitbox-base pairing …` reach a Base.
const controlSocket = "control.sock"

// ControlSocket returns the path of the socket on which the Base with this state
// directory takes the commands of somebody at its console.
func ControlSocket(stateDir string) string { return filepath.Join(stateDir, controlSocket) }

// Config is what a developer's Base is made of.
type Config struct {
	// StateDir holds everything that is stored, and the control socket. It is made
	// with mode 0700 if it does not exist.
	StateDir string
	// Listen is the TCP address; empty means DefaultListen.
	Listen string
	// Name names a Base that has no name yet; empty: "bitbox-base-" and four digits.
	Name string
	// Announce: tell the local network by mDNS. Interfaces chooses where; nil
	// means everywhere.
	Announce   bool
	Interfaces func(net.Interface) bool
	// In and Out are the terminal that is the Base's display. Without both, the
	// log is the display and the control socket answers.
	In  io.Reader
	Out io.Writer
	// Logger must be set.
	Logger *slog.Logger
	// Ready, if set, is called once when RunDev's Base accepts connections.
	Ready func(*Base)

	// appliance makes it the Middleware alone (RunMiddleware); nil: a whole Base.
	appliance *appliance

	// What follows is for tests; zero values mean the protocol's.

	// Entry takes the place of Listen: a unix socket to which NGINX passes connections,
	// each with a PROXY line, as on the appliance.
	Entry       net.Listener
	Limits      admission.Limits
	PendingTime time.Duration
	SessionTime time.Duration
	CodeModulus uint32
	Random      io.Reader
	// Now is the ceremony authority's clock, which never goes back.
	Now func() time.Duration
	// Failpoint is called before and after each write to disk.
	Failpoint func(point string)
}

// Base is a running Base. Stop ends it.
type Base struct {
	config    Config
	authority *authority     // nil on the appliance, where the system helper has it
	relay     pairing.Client // the authority as the Middleware reaches it
	db        *state.DB
	history   *state.DB // nil: it cannot be used
	events    *events.Hub
	registry  *registry.Registry
	attempts  *events.Attempts
	admission *admission.Listener
	server    *api.Server
	control   *net.UnixListener
	announcer announcer // nil: not announced
	nonce     [discovery.NonceSize]byte

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	failed  chan error // gets the first part that ended by itself
	stop    sync.Once
	stopped error
}

// announcer tells the local network of the Base.
type announcer interface {
	Update(discovery.TXT)
	Close() error
}

// RunDev runs a Base until ctx ends, or a part of it fails.
func RunDev(ctx context.Context, config Config) error {
	b, err := Start(config)
	if err != nil {
		return err
	}
	if config.Ready != nil {
		config.Ready(b)
	}
	var failure error
	select {
	case <-ctx.Done():
	case failure = <-b.failed:
	}
	return errors.Join(failure, b.Stop())
}

// Start starts a Base. Either all of its parts run, or none.
func Start(config Config) (*Base, error) {
	if config.Listen == "" {
		config.Listen = DefaultListen
	}
	if config.Limits == (admission.Limits{}) {
		config.Limits = admission.DefaultLimits()
	}
	b := &Base{config: config, failed: make(chan error, 1)}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	for _, step := range []func() error{b.prepareStateDir, b.openState, b.listen, b.announce} {
		if err := step(); err != nil {
			return nil, errors.Join(err, b.Stop())
		}
	}
	b.run()
	return b, nil
}

// prepareStateDir makes the directory, or refuses one that is not private.
func (b *Base) prepareStateDir() error {
	dir := b.config.StateDir
	if dir == "" {
		return errors.New("no state directory is given")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("look at the state directory: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("the state directory %s is no directory (or a link to one); name the directory itself", dir)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("the state directory %s is open to others (mode %04o); find out who could read it, then: chmod 700 %s", dir, mode, dir)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
		return fmt.Errorf("the state directory %s belongs to user %d, not to the one who starts this Base (%d)", dir, owner.Uid, os.Geteuid())
	}
	return nil
}

// openState opens the two states and compares them.
func (b *Base) openState() (err error) {
	b.db, err = state.Open(filepath.Join(b.config.StateDir, middlewareFile),
		state.Options{Kind: registry.StateKind, Schema: registry.StateSchema, Create: true})
	if err != nil {
		return err
	}
	b.history, err = state.Open(filepath.Join(b.config.StateDir, historyFile),
		state.Options{Kind: events.HistoryKind, Schema: events.HistorySchema, Create: true})
	if err != nil { // an owner comes in all the same
		b.config.Logger.Error("the history of events cannot be used", "audit", true, "error", err)
	}
	b.events = events.Open(b.history, b.config.Logger)
	b.registry, err = registry.Open(registry.Config{
		DB:          b.db,
		Events:      b.events,
		Logger:      b.config.Logger,
		Random:      b.config.Random,
		Name:        b.config.Name,
		PendingTime: b.config.PendingTime,
		SessionTime: b.config.SessionTime,
		Failpoint:   b.config.Failpoint,
	})
	if err != nil {
		return err
	}
	bootID, err := boottime.ID()
	if err != nil {
		b.config.Logger.Warn("whether the machine was booted is not known", "error", err)
	}
	b.events.PublishStart(bootID)
	if b.config.appliance != nil {
		b.relay = b.config.appliance.helper.Authority()
		if err := b.registry.Connect(b.ctx, b.relay); err != nil {
			return err
		}
		return b.registry.LearnRoles(b.ctx, b.config.appliance.helper)
	}
	b.authority, err = openAuthority(authorityConfig{
		stateDir:    b.config.StateDir,
		baseName:    b.registry.Name,
		random:      b.config.Random,
		codeModulus: b.config.CodeModulus,
		now:         b.config.Now,
		failpoint:   b.config.Failpoint,
		logger:      b.config.Logger,
	})
	if err != nil {
		return err
	}
	b.relay = pairing.Client{Port: b.authority.Port(pairing.CallerMiddleware)}
	return b.registry.Connect(b.ctx, b.relay)
}

// Console is the authority as somebody at the Base reaches it.
func (b *Base) Console() pairing.Client {
	return pairing.Client{Port: b.authority.Port(pairing.CallerConsole)}
}

// listen opens the way for Apps and, in a whole Base, the control socket.
func (b *Base) listen() error {
	entry, err := b.openEntry()
	if err != nil {
		return err
	}
	b.attempts = b.events.Attempts(b.relay)
	b.admission, err = admission.Listen(entry, admission.Config{
		Limits:    b.config.Limits,
		Static:    b.registry.Static(),
		Registry:  b.registry,
		Authority: b.attempts,
		Logger:    b.config.Logger,
		Random:    b.config.Random,
		Proxied:   b.config.appliance != nil || b.config.Entry != nil,
	})
	if err != nil {
		return errors.Join(err, entry.Close())
	}
	if b.config.appliance != nil {
		return nil
	}
	b.control, err = ipc.Listen(ControlSocket(b.config.StateDir), 0o600)
	return err
}

// openEntry returns what Apps come in by: NGINX's socket on the appliance, else a
// TCP port.
func (b *Base) openEntry() (net.Listener, error) {
	if b.config.appliance != nil {
		return b.config.appliance.entry, nil
	}
	if b.config.Entry != nil {
		return b.config.Entry, nil
	}
	tcp, err := net.Listen("tcp", b.config.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("listen on %s: another program listens there, perhaps another Base; end it, or choose another port with --listen", b.config.Listen)
	}
	if err != nil {
		return nil, fmt.Errorf("listen for Apps: %w", err)
	}
	return tcp, nil
}

// announce tells the network, if that is wanted.
func (b *Base) announce() (err error) {
	if _, err := io.ReadFull(orSystem(b.config.Random), b.nonce[:]); err != nil {
		return fmt.Errorf("read %d random bytes: %w", len(b.nonce), err)
	}
	if b.config.appliance != nil {
		b.announcer = b.config.appliance.announcer(b.ctx, b.config.Logger)
		b.announcer.Update(b.txt(false))
		return nil
	}
	if !b.config.Announce {
		return nil
	}
	b.announcer, err = discovery.Announce(b.ctx, discovery.Announcement{
		Instance:   b.registry.Name(),
		Port:       uint16(b.Addr().(*net.TCPAddr).Port),
		TXT:        b.txt(false),
		Interfaces: b.config.Interfaces,
	})
	return err
}

func (b *Base) txt(pairingOpen bool) discovery.TXT {
	return discovery.TXT{
		Version:     noiseconn.ProtocolVersion,
		Nonce:       b.nonce,
		ID:          noiseconn.DiscoveryID(b.registry.DiscoveryKey(), b.nonce[:]),
		PairingOpen: pairingOpen,
	}
}

func orSystem(random io.Reader) io.Reader {
	if random == nil {
		return rand.Reader
	}
	return random
}

// run starts what works until Stop.
func (b *Base) run() {
	server := api.Config{
		Registry: b.registry,
		Events:   b.events,
		Window:   b.relay,
		System:   api.LocalSystem{},
		StateDir: b.config.StateDir,
		Logger:   b.config.Logger,
	}
	if a := b.config.appliance; a != nil {
		server.System, server.Helper = a, a.helper
	}
	b.server = api.New(server)
	b.goRun("serve Apps", func() error { return b.server.Serve(b.admission) })
	b.running.Go(func() { b.server.KeepMeasuring(b.ctx) })
	b.goRun("watch the authority", func() error { return b.follow(b.ctx) })
	if a := b.config.appliance; a != nil {
		b.running.Go(func() { b.events.Follow(b.ctx, a.helper, b.registry.SetRoles) })
		return
	}
	control := ipc.Server{Handler: b.authority.console(), Refused: func(peer ipc.Peer, err error) {
		b.config.Logger.Warn("a request to the control socket was refused", "uid", peer.UID, "pid", peer.PID, "error", err)
	}}
	b.goRun("serve the control socket", func() error { return control.Serve(b.ctx, b.control) })
	b.goRun("show pairings", func() error { return b.display(b.ctx) })
	b.config.Logger.Info("this Base is ready", "name", b.registry.Name(), "listen", b.Addr().String(), "public_key", b.registry.PublicKey().String())
}

// goRun runs a part. One that ends by itself ends the Base.
func (b *Base) goRun(what string, part func() error) {
	b.running.Go(func() {
		err := part()
		if b.ctx.Err() != nil {
			return
		}
		select {
		case b.failed <- fmt.Errorf("%s: ended by itself: %w", what, err):
		default:
		}
	})
}

// followStep is the least time between two looks at the authority: a flood of
// requests changes what there is to see at each of them.
const followStep = 100 * time.Millisecond

// followAgain is how long after a failure the authority is looked at again.
const followAgain = 2 * time.Second

// follow passes on when the Base begins or ends to listen for pairing requests. An
// authority that does not answer (a helper that restarts) is no reason to end
// the sessions of Apps.
func (b *Base) follow(ctx context.Context) error {
	for seen := (&systemv1.Snapshot{}); ; {
		pause := followStep
		snapshot, err := b.relay.Watch(ctx, seen.GetVersion())
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			b.config.Logger.Warn("look whether pairing is open; trying again", "error", err)
			snapshot, pause = &systemv1.Snapshot{}, followAgain // nobody listens
		}
		if otherWindow(seen, snapshot) {
			b.events.PublishWindow(events.WindowOf(snapshot))
		}
		b.attempts.Listening(snapshot.GetListening())
		if snapshot.GetListening() != seen.GetListening() && b.announcer != nil {
			b.announcer.Update(b.txt(snapshot.GetListening()))
		}
		seen = snapshot
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// otherWindow tells whether the window was opened, closed or changed. One that was closed and
// opened again between two looks, or prolonged, is known by the time that it has left.
func otherWindow(seen, now *systemv1.Snapshot) bool {
	return now.GetWindowOpen() != seen.GetWindowOpen() || now.GetWindowRole() != seen.GetWindowRole() ||
		now.GetWindowRemainingMs() > seen.GetWindowRemainingMs()
}

// display shows requests and codes to whoever is at the Base.
func (b *Base) display(ctx context.Context) error {
	if b.config.In != nil && b.config.Out != nil {
		return console.Run(ctx, b.Console(), b.config.In, b.config.Out)
	}
	return console.Log(ctx, b.Console(), b.config.Logger)
}

// Addr returns the TCP address that is listened on.
func (b *Base) Addr() net.Addr { return b.admission.Addr() }

// Name returns the Base's name.
func (b *Base) Name() string { return b.registry.Name() }

// PublicKey returns the Base's public static key.
func (b *Base) PublicKey() noiseconn.PublicKey { return b.registry.PublicKey() }

// Stop ends the Base: streams are told, calls get a moment, and what is stored
// is closed.
func (b *Base) Stop() error {
	b.stop.Do(func() { b.stopped = b.end() })
	return b.stopped
}

func (b *Base) end() error {
	var errs []error
	b.cancel()
	if b.server != nil {
		b.server.Stop()
	}
	if b.announcer != nil {
		errs = append(errs, b.announcer.Close())
	}
	if b.admission != nil {
		errs = append(errs, ignoreClosed(b.admission.Close()))
	}
	if b.control != nil {
		errs = append(errs, ignoreClosed(b.control.Close()))
	}
	b.running.Wait()
	if b.authority != nil {
		errs = append(errs, b.authority.close())
	}
	if b.registry != nil {
		b.registry.Close()
	}
	if b.events != nil {
		b.events.Close()
	}
	for _, db := range []*state.DB{b.db, b.history} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
