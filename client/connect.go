package client

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
)

// maxCandidates is how many addresses are tried for one connection.
const maxCandidates = 32

// race tries addresses until one succeeds: the next one starts when the one before has failed, or
// has not succeeded for a while. If the source is closed and nothing is under way, it returns the
// most informative error.
func race[T net.Conn](ctx context.Context, source <-chan string, stagger time.Duration,
	try func(context.Context, string) (T, error)) (winner T, address string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		value   T
		address string
		err     error
	}
	// There is room for all, so a loser does not block.
	results := make(chan result, maxCandidates)
	started, running := 0, 0
	defer func() {
		// Another one may have succeeded at the same moment.
		go func() {
			for range running {
				if late := <-results; late.err == nil {
					late.value.Close()
				}
			}
		}()
	}()
	tried := map[string]bool{}
	var waiting *time.Timer
	next := source
	err = errors.New("no address is known")
	for next != nil || running > 0 {
		var ready <-chan time.Time
		open := next
		if waiting != nil {
			open, ready = nil, waiting.C // not yet
		}
		select {
		case <-ctx.Done():
			return winner, "", errors.Join(ctx.Err(), err)
		case <-ready:
			waiting = nil
		case target, ok := <-open:
			if !ok || started == maxCandidates {
				next = nil
				continue
			}
			if tried[target] {
				continue
			}
			tried[target] = true
			started++
			running++
			waiting = time.NewTimer(stagger)
			go func() {
				value, err := try(ctx, target)
				results <- result{value, target, err}
			}()
		case r := <-results:
			running--
			if r.err == nil {
				return r.value, r.address, nil
			}
			err = worse(err, r.err)
			if errors.Is(err, ErrRevoked) {
				return winner, "", err
			}
			waiting = nil
		}
	}
	return winner, "", err
}

// worse returns the more informative error: an answer of a Base, then silence, then failure to
// reach anything.
func worse(a, b error) error {
	rank := func(err error) int {
		return slices.IndexFunc([]error{ErrUnreachable, ErrNotABase, ErrSilent, ErrSecondBoard, ErrStorage, ErrRevoked},
			func(kind error) bool { return errors.Is(err, kind) })
	}
	if rank(a) > rank(b) {
		return a
	}
	return b
}

// dial makes a new handshake with the Base of a pairing, at the first address where the Base
// proves itself, and stores that address. It tries the given addresses or, if there are none,
// those where the Base was last and those announced on the local network.
func (a *App) dial(ctx context.Context, id string, given []string) (*noiseconn.Conn, error) {
	p, err := a.store.pairing(id)
	if err != nil {
		return nil, err
	}
	if !p.State.Usable() {
		return nil, failUnusable(p)
	}
	if p.State == Unclaimed {
		if p, err = a.claim(ctx, p, given); err != nil {
			return nil, err
		}
	}
	conn, address, err := a.reach(ctx, p, given)
	if errors.Is(err, ErrSilent) && p.State == Pending && p.claim != nil {
		// Its part was lost on the way. The claim is good until the Base has answered.
		if again, failed := a.claim(ctx, p, given); failed == nil {
			p = again
			conn, address, err = a.reach(ctx, p, given)
		}
	}
	if err == nil {
		a.connected(p, address, conn.seq)
		return conn.Conn, nil
	}
	if errors.Is(err, ErrRevoked) {
		if stored := a.notes.kept(a.store.revoke(id)); stored != nil {
			return nil, stored
		}
		return nil, failRevoked(p, err)
	}
	return nil, err
}

// reach makes a handshake with the Base of a pairing, at the first address where the Base proves
// itself.
func (a *App) reach(ctx context.Context, p *pairing, given []string) (proved, string, error) {
	known := given
	if len(given) == 0 {
		known = p.Addresses
	}
	searching, stop := context.WithCancel(ctx)
	defer stop()
	conn, address, err := race(ctx, a.addresses(searching, p, known, len(given) == 0), a.timing.stagger,
		func(ctx context.Context, address string) (proved, error) {
			return a.dialOnce(ctx, p, address)
		})
	if err != nil {
		return proved{}, "", a.unreached(p, known, len(given) == 0, err)
	}
	return conn, address, nil
}

// unreached explains in a sentence why no address worked.
func (a *App) unreached(p *pairing, known []string, searched bool, err error) error {
	switch {
	case errors.Is(err, ErrRevoked), errors.Is(err, ErrSecondBoard):
		return err
	case errors.Is(err, ErrStorage), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, ErrSilent), errors.Is(err, ErrNotABase):
		// The wall clock is used, because the App may have been ended in between.
		if p.State == Pending && p.claim == nil && a.now().Sub(p.PairedAt) >= a.timing.pendingLife {
			if stored := a.notes.kept(a.store.remove(p.AppID)); stored != nil {
				return stored
			}
			return fail(ErrPairAgain, err, "the Base %q does not know this App: the pairing was not completed in time, and is void; pair again", p.Name)
		}
		return fail(ErrSilent, err, "the Base %q did not answer (%v): another machine may have its address now, or the Base was reset and has forgotten this App; check its address, or pair again", p.Name, err)
	}
	if !searched {
		return fail(ErrUnreachable, err, "the Base %q could not be reached at %s (%v); check the address, or leave it out to search for the Base",
			p.Name, list(known), reason(err))
	}
	return fail(ErrUnreachable, err, "the Base %q could not be reached (%v) at %s, nor found on the local network; check that it is on and on this network", p.Name, reason(err), list(known))
}

// failUnusable says why a pairing can no longer be used.
func failUnusable(p *pairing) error {
	if p.State == Reset {
		return fail(ErrPairAgain, nil, "this App has wiped the Base %q, which no longer knows any App; pair again", p.Name)
	}
	return failRevoked(p, nil)
}

func failRevoked(p *pairing, cause error) error {
	return fail(ErrRevoked, cause, "this App was revoked at the Base %q; ask an owner to open pairing and pair again, or delete the pairing here with 'forget'",
		p.Name)
}

// addresses are the known ones and then, if none of them works soon and the local network may be
// searched, those that are announced. The channel is closed when there are no more.
func (a *App) addresses(ctx context.Context, p *pairing, known []string, search bool) <-chan string {
	source := make(chan string)
	go func() {
		defer close(source)
		for _, address := range known {
			select {
			case source <- address:
			case <-ctx.Done():
				return
			}
		}
		if !search || a.noDiscovery {
			return
		}
		// The last one also gets a moment before the search.
		select {
		case <-time.After(a.timing.stagger):
		case <-ctx.Done():
			return
		}
		ctx, cancel := context.WithTimeout(ctx, a.timing.discover)
		defer cancel()
		for address := range a.browseFor(ctx, p) {
			select {
			case source <- address:
			case <-ctx.Done():
				return
			}
		}
	}()
	return source
}

// proved is a connection with a Base that has proved itself.
type proved struct {
	*noiseconn.Conn
	seq uint64 // the number of the connection
}

// dialOnce makes a handshake with the server at one address. If the Base may have been silent
// because the number was too low, it tries once more, with a number above the ceiling.
func (a *App) dialOnce(ctx context.Context, p *pairing, address string) (proved, error) {
	conn, seq, err := a.attempt(ctx, p, address, 0)
	if p.maybeBehind(seq, a.now(), err) {
		conn, seq, err = a.attempt(ctx, p, address, p.ceiling)
	}
	if err == nil {
		return proved{conn, seq}, nil
	}
	if errors.Is(err, ErrSilent) && p.claim != nil && p.State == Active && a.isSecondBoard(ctx, p, address) {
		return proved{}, failSecondBoard(p, address)
	}
	return proved{}, err
}

// attempt makes one handshake, with a number above over. It returns the number 0 if it got no
// further.
func (a *App) attempt(ctx context.Context, p *pairing, address string, over uint64) (*noiseconn.Conn, uint64, error) {
	if err := a.checkSilence(p, address); err != nil {
		return nil, 0, err
	}
	connecting, cancel := context.WithTimeout(ctx, a.timing.tcp)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(connecting, "tcp", address)
	if err != nil {
		return nil, 0, fail(ErrUnreachable, err, "could not connect to %s: %v", address, reason(err))
	}
	defer cutOff(ctx, conn)()
	seq, err := a.store.nextSeq(p.AppID, a.now(), over)
	if err != nil {
		conn.Close()
		return nil, 0, err
	}
	begun := time.Now()
	secure, err := a.handshake(conn, p, seq)
	if noted := a.noteSilence(ctx, p, address, time.Since(begun), err); noted != nil {
		err = noted
	}
	if err != nil {
		conn.Close()
		return nil, seq, err
	}
	return secure, seq, nil
}

func (a *App) handshake(conn net.Conn, p *pairing, seq uint64) (*noiseconn.Conn, error) {
	initiator, err := noiseconn.NewConnectInitiator(a.random, p.static, p.PublicKey, p.pair, seq)
	if err != nil {
		return nil, err
	}
	r2, err := exchange(conn, noiseconn.TypeConnect, initiator.R1(), noiseconn.R2Size, a.timing.handshake)
	if err != nil {
		return nil, err
	}
	status, transport, err := initiator.ReadR2(r2)
	switch {
	case err != nil:
		return nil, fail(ErrNotABase, err, "the machine that answers at %s does not have the Base's keys", conn.RemoteAddr())
	case status == noiseconn.StatusRevoked:
		return nil, failRevoked(p, nil)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, fail(ErrUnreachable, err, "the connection to %s: %v", conn.RemoteAddr(), reason(err))
	}
	return noiseconn.NewConn(conn, transport), nil
}
