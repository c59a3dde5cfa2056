// Package devbase runs a whole Base in one process, for a developer's machine and for tests:
// the Middleware, the ceremony authority and the console. It needs no root, and touches
// nothing outside its state directory.
//
// On the appliance these parts are separate processes, each in its own sandbox
// (docs/architecture.md). The interfaces between them are the same here.
package devbase

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/console"
	"github.com/BitBoxSwiss/bitbox-base/internal/discovery"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/daemon"
	"github.com/BitBoxSwiss/bitbox-base/internal/nodeclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/announcement"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
)

// DefaultListen is where a Base listens: port 8845 on all addresses.
const DefaultListen = ":8845"

// controlSocket is where the commands `bitbox-base pairing …` reach a Base.
const controlSocket = "control.sock"

// ControlSocket returns the path of the socket on which the Base with this state directory takes
// commands from its console.
func ControlSocket(stateDir string) string { return filepath.Join(stateDir, controlSocket) }

// Config is the configuration of a developer's Base.
type Config struct {
	// StateDir holds everything that is stored, and the control socket. It is created with mode
	// 0700 if it does not exist.
	StateDir string
	// Listen is the TCP address; empty means DefaultListen.
	Listen string
	// Name names a Base that has no name yet; empty: "bitbox-base-" and four digits.
	Name string
	// Announce: tell the local network by mDNS. Interfaces chooses where; nil
	// means everywhere.
	Announce   bool
	Interfaces func(net.Interface) bool
	// Node is the path of bitbox-node's socket; empty: this Base has no node.
	Node string
	// In and Out are the terminal that is the Base's display. Without both, the log is the
	// display and the control socket takes the answers.
	In  io.Reader
	Out io.Writer
	// Logger must be set.
	Logger *slog.Logger
	// Ready, if set, is called once when RunDev's Base accepts connections.
	Ready func(*Base)

	// The fields below are for tests; zero values mean the protocol's.

	// Entry replaces Listen: a unix socket to which NGINX passes connections, each with a PROXY
	// line, as on the appliance.
	Entry       net.Listener
	Limits      admission.Limits
	PendingTime time.Duration
	SessionTime time.Duration
	CodeModulus uint32
	Random      io.Reader
	// Now is the ceremony authority's clock, which never goes back.
	Now func() time.Duration
}

// Base is a running Base. Stop ends it.
type Base struct {
	*daemon.Middleware
	config    Config
	authority *authority
	control   *net.UnixListener

	stop    sync.Once
	stopped error
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
	case failure = <-b.Failed():
	}
	return errors.Join(failure, b.Stop())
}

// Start starts a Base. Either all of its parts run, or none.
func Start(config Config) (*Base, error) {
	middleware, err := daemon.Open(daemon.Config{
		StateDir: config.StateDir, Name: config.Name, Logger: config.Logger, Random: config.Random,
		PendingTime: config.PendingTime, SessionTime: config.SessionTime,
	})
	if err != nil {
		return nil, err
	}
	b := &Base{Middleware: middleware, config: config}
	if err := b.start(); err != nil {
		return nil, errors.Join(err, b.Stop())
	}
	return b, nil
}

func (b *Base) start() (err error) {
	b.authority, err = openAuthority(authorityConfig{
		stateDir:    b.config.StateDir,
		baseName:    b.Name,
		random:      b.config.Random,
		codeModulus: b.config.CodeModulus,
		now:         b.config.Now,
		logger:      b.config.Logger,
	})
	if err != nil {
		return err
	}
	parts := daemon.Parts{
		Entry: b.config.Entry, Proxied: b.config.Entry != nil, Limits: b.config.Limits,
		Authority: pairing.Client{Port: b.authority.Port(pairing.CallerMiddleware)},
		Machine:   localMachine{},
	}
	if b.config.Node != "" {
		parts.Node = nodeclient.Dial(b.config.Node)
	}
	if parts.Entry == nil {
		if parts.Entry, err = listen(b.config.Listen); err != nil {
			return err
		}
	}
	if b.config.Announce {
		parts.Announcer = func(txt announcement.TXT) (daemon.Announcer, error) {
			return discovery.Announce(b.Context(), discovery.Announcement{
				Instance: b.Name(), Port: uint16(parts.Entry.Addr().(*net.TCPAddr).Port), TXT: txt, Interfaces: b.config.Interfaces})
		}
	}
	if b.control, err = ipc.Listen(ControlSocket(b.config.StateDir), 0o600); err != nil {
		return errors.Join(err, parts.Entry.Close())
	}
	if err := b.Middleware.Start(parts); err != nil {
		return err
	}
	control := ipc.Server{Handler: b.authority.console(), Refused: func(peer ipc.Peer, err error) {
		if b.Context().Err() != nil {
			return // the Base stops; nobody was refused
		}
		b.config.Logger.Warn("a request to the control socket was refused", "uid", peer.UID, "pid", peer.PID, "error", err)
	}}
	b.Go("serve the control socket", func(ctx context.Context) error { return control.Serve(ctx, b.control) })
	b.Go("show pairings", b.display)
	b.config.Logger.Info("this Base is ready", "name", b.Name(), "listen", b.Addr().String(), "public_key", b.PublicKey().String())
	return nil
}

// listen opens the TCP port for Apps.
func listen(address string) (net.Listener, error) {
	if address == "" {
		address = DefaultListen
	}
	tcp, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("listen on %s: another program listens there, perhaps another Base; end it, or choose another port with --listen",
			address)
	}
	if err != nil {
		return nil, fmt.Errorf("listen for Apps: %w", err)
	}
	return tcp, nil
}

// display shows requests and codes to the person at the Base.
func (b *Base) display(ctx context.Context) error {
	if b.config.In != nil && b.config.Out != nil {
		return console.Run(ctx, b.Console(), b.config.In, b.config.Out)
	}
	return console.Log(ctx, b.Console(), b.config.Logger)
}

// Console is the authority as a person at the Base reaches it.
func (b *Base) Console() pairing.Client {
	return pairing.Client{Port: b.authority.Port(pairing.CallerConsole)}
}

// Stop ends the Base: it notifies streams, gives calls a moment, and closes what is stored.
func (b *Base) Stop() error {
	b.stop.Do(func() { b.stopped = b.end() })
	return b.stopped
}

func (b *Base) end() error {
	errs := []error{b.Middleware.Stop()}
	if b.control != nil {
		if err := b.control.Close(); !errors.Is(err, net.ErrClosed) && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if b.authority != nil {
		errs = append(errs, b.authority.close())
	}
	return errors.Join(errs...)
}
