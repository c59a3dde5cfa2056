package electrum

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/history"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/index"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/mempool"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/session"
)

// Bounds of what wallets follow.
const (
	// MaxScripts is how many scripts one session may follow.
	MaxScripts = 10_000
	// MaxHistory is how many transactions, and how many coins, a history may have.
	MaxHistory = 10_000
	// maxWeight is how much all sessions may follow together: a script counts one, and so does
	// each transaction and coin of its history. One takes about 100 bytes.
	maxWeight = 1_000_000
	// maxShare is how much the sessions of one address may follow of it. What two of them follow
	// counts twice.
	maxShare = maxWeight / 4
)

// script is one that wallets follow.
type script struct {
	hash      chain.Hash
	confirmed *history.History
	waiting   []mempool.Entry
	status    string // empty: nothing has happened
	followers map[*session.Session]bool
	weight    int
	stale     bool // the status must be computed again
}

// wallet is what a session has in Session.State.
type wallet struct {
	version string // of the protocol
	scripts map[chain.Hash]bool
	told    chain.Hash // the last block that it was told of
}

// publish shows the chain of the index to wallets, and what the block at its end does to the
// scripts that they follow.
func (s *Server) publish(d *history.Digest) error {
	if err := s.index.Publish(); err != nil {
		return err
	}
	view := s.index.View()
	s.mu.Lock()
	defer s.mu.Unlock()
	fork := view.Len()
	if d != nil {
		fork--
	}
	for _, f := range s.scripts {
		entries := f.confirmed.Entries
		if n := len(entries); n > 0 && entries[n-1].Height >= fork {
			f.confirmed.Cut(fork - 1)
			f.stale = true
		}
		if d != nil && d.Touches(f.hash, f.confirmed) {
			f.confirmed.Extend(f.hash, d)
			f.stale = true
		}
	}
	if d != nil {
		s.mempool.Update(d.IDs(), nil)
	}
	s.view = view
	s.changed++
	return nil
}

// read reads the history of a script that nobody follows.
func (s *Server) read(ctx context.Context, c *session.Session, view *index.View, hash chain.Hash) (h *history.History, err error) {
	if err := s.reading(ctx, c, func(ctx context.Context, blocks history.Blocks) error {
		h, err = history.Read(ctx, blocks, view, hash, MaxHistory)
		return err
	}); err != nil {
		return nil, err
	}
	return h, c.Spend(ctx, len(h.Entries))
}

// reading has do read from the node when it is the turn of the session's address. Nobody waits for
// a budget meanwhile: that would keep others waiting. A read that is too large or takes too long
// costs as much as the largest that does not.
func (s *Server) reading(ctx context.Context, c *session.Session, do func(context.Context, history.Blocks) error) error {
	err := s.inTurn(ctx, c, do)
	switch {
	case errors.Is(err, errBusy):
		return session.Refused("the server is busy; try again")
	case !errors.Is(err, history.ErrTooLarge) && !errors.Is(err, errTooLong):
		return err
	}
	if err := c.Spend(ctx, MaxHistory); err != nil {
		return err
	}
	return session.Refused("history too large")
}

func (s *Server) inTurn(ctx context.Context, c *session.Session, do func(context.Context, history.Blocks) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTime, errBusy)
	defer cancel()
	turn, ctx, err := s.reads.take(ctx, c.Subscriber(), s.config.Node)
	if err != nil {
		return err
	}
	defer turn.done()
	if err = do(ctx, turn); err != nil && ctx.Err() != nil {
		return context.Cause(ctx) // what the node says of a question that was broken off tells nothing
	}
	return err
}

// now returns what has happened to a script in the chain and what waits, both of one moment.
func (s *Server) now(ctx context.Context, c *session.Session, hash chain.Hash) (*history.History, []mempool.Entry, error) {
	s.mu.RLock()
	if f := s.scripts[hash]; f != nil {
		defer s.mu.RUnlock()
		return f.confirmed.Clone(), s.mempool.Of(hash, f.confirmed), nil
	}
	view := s.view
	s.mu.RUnlock()
	h, err := s.read(ctx, c, view, hash)
	if err != nil {
		return nil, nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return h, s.mempool.Of(hash, h), nil
}

// follow has a session follow a script, and returns its status.
func (s *Server) subscribe(ctx context.Context, c *session.Session, hash chain.Hash) (any, error) {
	w := c.State.(*wallet)
	if len(w.scripts) >= MaxScripts && !w.scripts[hash] {
		return nil, session.Refused("a session follows at most %d scripts", MaxScripts)
	}
	const tries = 5 // a block may come while a history is read
	for range tries {
		s.mu.RLock()
		view, known := s.view, s.scripts[hash] != nil
		s.mu.RUnlock()
		h := &history.History{}
		if !known {
			var err error
			if h, err = s.read(ctx, c, view, hash); err != nil {
				return nil, err
			}
		}
		status, ok, err := s.enter(c, w, view, hash, h)
		if err != nil || ok {
			return status, err
		}
	}
	return nil, session.Refused("the chain changes too fast; try again")
}

// enter notes that a session follows a script; false: the chain has changed since view.
func (s *Server) enter(c *session.Session, w *wallet, view *index.View, hash chain.Hash, h *history.History) (any, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.scripts[hash]
	if w.scripts[hash] {
		return f.text(), true, nil
	}
	known := f != nil
	if !known {
		if s.view != view {
			return nil, false, nil
		}
		f = &script{hash: hash, confirmed: h, followers: map[*session.Session]bool{}, weight: 1 + len(h.Entries) + len(h.Coins)}
	}
	from := c.Subscriber()
	switch {
	case s.shares[from]+f.weight > s.share:
		return nil, false, session.Refused("the wallets at this address follow too much; close some of them")
	case !known && s.weight+f.weight > maxWeight:
		for _, c := range s.greediest(s.shares[from] + f.weight) {
			c.End()
		}
		return nil, false, session.Refused("the wallets of this server follow too much; try again")
	}
	if !known {
		s.weight += f.weight
		s.scripts[hash] = f
		s.refresh(f)
	}
	s.shares[from] += f.weight
	f.followers[c], w.scripts[hash] = true, true
	return f.text(), true, nil
}

// greediest are the sessions of the address that follows most, if that is more than somebody else would
// follow who finds no room.
func (s *Server) greediest(than int) (all []*session.Session) {
	var of netip.Prefix
	for from, share := range s.shares {
		if share > than {
			of, than = from, share
		}
	}
	if !of.IsValid() {
		return nil
	}
	for _, f := range s.scripts {
		for c := range f.followers {
			if c.Subscriber() == of && !slices.Contains(all, c) {
				all = append(all, c)
			}
		}
	}
	return all
}

// text is the status as a wallet gets it.
func (f *script) text() any {
	if f.status == "" {
		return nil
	}
	return f.status
}

// unsubscribe ends that.
func (s *Server) unsubscribe(c *session.Session, hash chain.Hash) bool {
	w := c.State.(*wallet)
	if !w.scripts[hash] {
		return false
	}
	delete(w.scripts, hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.scripts[hash]
	from := c.Subscriber()
	if s.shares[from] -= f.weight; s.shares[from] == 0 {
		delete(s.shares, from)
	}
	if delete(f.followers, c); len(f.followers) == 0 {
		delete(s.scripts, hash)
		s.weight -= f.weight
	}
	return true
}

// Closed implements session.Handler.
func (s *Server) Closed(c *session.Session) {
	s.mu.Lock()
	delete(s.watchers, c)
	s.mu.Unlock()
	if w, is := c.State.(*wallet); is {
		for hash := range w.scripts {
			s.unsubscribe(c, hash)
		}
	}
}

// refresh computes a status, and tells whether it has changed.
func (s *Server) refresh(f *script) bool {
	waiting := s.mempool.Of(f.hash, f.confirmed)
	if !f.stale && f.status != "" && slices.Equal(waiting, f.waiting) {
		return false
	}
	f.waiting, f.stale = waiting, false
	before := f.status
	f.status = status(f.confirmed, waiting)
	return f.status != before
}

// status is the protocol's: a hash over all transactions with their heights; empty without any.
func status(h *history.History, waiting []mempool.Entry) string {
	if len(h.Entries)+len(waiting) == 0 {
		return ""
	}
	sum := sha256.New()
	for _, e := range h.Entries {
		_, _ = fmt.Fprintf(sum, "%v:%d:", e.ID, e.Height)
	}
	for _, e := range waiting {
		_, _ = fmt.Fprintf(sum, "%v:%d:", e.ID, e.Height)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// notify tells the wallets what has changed since it was called last.
func (s *Server) notify() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == 0 {
		return
	}
	s.changed = 0
	s.fees.forget()
	for _, f := range s.scripts {
		if s.refresh(f) {
			for c := range f.followers {
				c.Notify("blockchain.scripthash.subscribe", f.hash.String(), f.text())
			}
		}
	}
	header, err := s.tip(s.view)
	if err != nil {
		s.config.Logger.Warn("the newest block cannot be told", "error", err)
		return
	}
	for c := range s.watchers {
		if w := c.State.(*wallet); w.told != s.view.Hash(s.view.Len()-1) {
			w.told = s.view.Hash(s.view.Len() - 1)
			c.Notify("blockchain.headers.subscribe", header)
		}
	}
}
