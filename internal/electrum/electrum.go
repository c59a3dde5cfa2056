// Package electrum is a small Electrum server for the wallets of a Base's owner, versions 1.4 to
// 1.6 of the protocol.
//
//   - chain/ parses blocks and transactions, index/ finds them again, history/ says what has
//     happened to a script, mempool/ what waits for a block; source/ asks the node.
//   - sync.go follows the node: blocks into the index, then the mempool.
//   - scripts.go has the scripts that wallets follow, and tells them of changes; turns.go shares what
//     they read from the node among their addresses.
//   - session/ carries the protocol, methods.go has its methods.
//
// Wallets are strangers, and the node is a guest. The server knows no secret.
package electrum

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/index"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/mempool"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/session"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/source"
)

// Config says what is served, and where.
type Config struct {
	Node *source.Node
	// Directory belongs to the server. The index is in it.
	Directory string
	// Listen is called when the server is ready; before that no wallet can connect.
	Listen func() (net.Listener, error)
	// Proxy: each connection begins with a PROXY line.
	Proxy bool
	// Full tells why no block may be added, as a disk that has too little room; nil or "": one may. The
	// index shares the disk of the system.
	Full func() string
	// Finder answers from the index; it may be nil.
	Finder *Finder
	// Tell is called with each change of the progress; it must not wait for anything.
	Tell func(Progress)
	// Interval is how often the node is asked for news.
	Interval time.Duration
	Logger   *slog.Logger
}

// Progress is how far the server is.
type Progress struct {
	// Ready: wallets are served.
	Ready bool `json:"ready"`
	// Height is how many blocks are in the index, Target how many there should be.
	Height uint32 `json:"height"`
	Target uint32 `json:"target"`
	// Rebuilt: the index was damaged, and is built again.
	Rebuilt bool `json:"rebuilt"`
	// Reason is a sentence for an owner, without a full stop: why it is not ready. It may be empty.
	Reason string `json:"reason"`
}

// Server is one.
type Server struct {
	config Config
	index  *index.Index
	reads  *turns

	mu       sync.RWMutex
	view     *index.View
	mempool  *mempool.Mempool
	scripts  map[chain.Hash]*script
	watchers map[*session.Session]bool // of new blocks
	weight   int                       // of scripts
	shares   map[netip.Prefix]int      // what the sessions of each address follow, as a weight
	share    int                       // maxShare
	progress Progress
	changed  int // counts changes of view and mempool

	fees feeCache
}

// Run serves until ctx ends. It fails if it can never serve, as with a pruned node. An index that
// is damaged is built again.
func Run(ctx context.Context, config Config) error {
	rebuilt := false
	for {
		s := newServer(config)
		s.progress.Rebuilt = rebuilt
		err := s.run(ctx)
		if !errors.Is(err, index.ErrDamaged) {
			return err
		}
		config.Logger.Error("the index is damaged, and is built again", "error", err)
		if err := os.WriteFile(s.marker(), nil, 0o600); err != nil {
			return fmt.Errorf("mark the index as damaged: %w", err)
		}
		rebuilt = true
	}
}

func newServer(config Config) *Server {
	return &Server{config: config, reads: newTurns(maxPlaces, maxUnderWay, time.Now), mempool: mempool.New(),
		scripts: map[chain.Hash]*script{}, watchers: map[*session.Session]bool{}, shares: map[netip.Prefix]int{}, share: maxShare}
}

// marker is a file that is there while the index is damaged: the store may end the process.
func (s *Server) marker() string { return filepath.Join(s.config.Directory, "damaged") }

// open opens the index. A damaged one is removed before.
func (s *Server) open() error {
	directory := filepath.Join(s.config.Directory, "index")
	if _, err := os.Stat(s.marker()); err == nil {
		s.progress.Rebuilt = true
		if err := errors.Join(os.RemoveAll(directory), os.Remove(s.marker())); err != nil {
			return fmt.Errorf("remove the damaged index: %w", err)
		}
	}
	var err error
	s.index, err = index.Open(index.Config{Directory: directory, First: s.config.Node.First(), Logger: s.config.Logger,
		Damaged: func() { _ = os.WriteFile(s.marker(), nil, 0o600) }})
	return err
}

func (s *Server) run(ctx context.Context) (err error) {
	if err := s.open(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	unused := s.config.Finder.use(ctx, s)
	defer func() {
		cancel()
		running.Wait()
		unused()
		err = errors.Join(err, s.index.Close())
	}()
	served := make(chan error, 1)
	ready := false
	for {
		caughtUp, err := s.follow(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, index.ErrDamaged), errors.Is(err, source.ErrPruned), errors.Is(err, source.ErrNetwork):
			return err
		case err != nil:
			s.config.Logger.Warn("the node cannot be followed", "error", err)
			s.tell(func(p *Progress) { p.Reason = sentence(err) })
		case caughtUp && !ready:
			listener, err := s.config.Listen()
			if err != nil {
				return err
			}
			ready = true
			wallets := &session.Server{Handler: s, Proxy: s.config.Proxy, Log: s.config.Logger.Warn}
			running.Go(func() { served <- wallets.Serve(ctx, listener) })
		}
		s.tell(func(p *Progress) {
			if p.Ready = ready; err == nil && caughtUp {
				p.Reason = ""
			}
		})
		select {
		case <-ctx.Done():
			return nil
		case err := <-served:
			return err
		case <-s.index.Damaged():
			return index.ErrDamaged
		case <-time.After(s.config.Interval):
		}
	}
}

// tell changes the progress, and hands it on.
func (s *Server) tell(change func(*Progress)) {
	before := s.progress
	change(&s.progress)
	if s.progress != before && s.config.Tell != nil {
		s.config.Tell(s.progress)
	}
}

// sentence is an error for an owner.
func sentence(err error) string {
	const longest = 200
	text := err.Error()
	return text[:min(len(text), longest)]
}
