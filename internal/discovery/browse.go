package discovery

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/announcement"
)

// BrowseOptions are the choices of Browse.
type BrowseOptions struct {
	// Interfaces chooses where to ask; nil means as in Announcement.
	Interfaces func(net.Interface) bool
	// Own tells whether an answer is from a Base that the caller knows. Own answers have their
	// own room (MaxOwn), which others cannot fill.
	Own func(announcement.TXT) bool
}

// MaxOwn is how many different answers that pass BrowseOptions.Own one Browse returns. It is more
// than the number of Bases, because anybody may repeat their TXT records.
const MaxOwn = 32

// Browse asks for Bases, at once and then every second, until the context ends; then it closes
// the channel. A Base is sent on the channel when it is first heard, and again, complete, when it
// says something new: an address, or that pairing is now open. Two values are about the same Base
// if their Key is equal.
func Browse(ctx context.Context, options BrowseOptions) (<-chan Found, error) {
	// Questions from an ephemeral port are answered to that port alone, which reaches this
	// process whatever else runs here. Answers to the group arrive on the shared port, if it can
	// be opened. Some firewalls pass only one of the two.
	sockets, err := listen(false)
	if err != nil {
		return nil, fmt.Errorf("look for Bases (give the address instead): %w", err)
	}
	if shared, err := listen(true); err == nil {
		sockets = append(sockets, shared...)
	}
	b := &browser{table: newTable(options.Own), out: make(chan Found)}
	var reading sync.WaitGroup
	for _, s := range sockets {
		reading.Go(func() { b.read(ctx, s) })
	}
	go func() {
		b.ask(ctx, sockets, options.Interfaces)
		for _, s := range sockets {
			_ = s.conn.Close()
		}
		reading.Wait()
		close(b.out)
	}()
	return b.out, nil
}

type browser struct {
	out chan Found

	mu    sync.Mutex // guards table
	table *table
}

// ask sends the question until the context ends.
func (b *browser) ask(ctx context.Context, sockets []*socket, chosen func(net.Interface) bool) {
	question := packQuery()
	ticker := time.NewTicker(queryInterval)
	defer ticker.Stop()
	for {
		for _, i := range usable(chosen) {
			for _, s := range sockets {
				s.join(&i)
				s.sendToGroup(question, &i)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// read passes on what arrives on one socket, until it is closed. It reads only while the receiver
// is ready.
func (b *browser) read(ctx context.Context, s *socket) {
	buffer := make([]byte, maxMessage)
	for {
		n, from, err := s.read(buffer)
		if err != nil {
			return
		}
		// The check of the port is a small hurdle: it stops senders outside the network, and
		// users without administrator rights.
		if from.source.Port != mdnsPort {
			continue
		}
		zone, local := origin(from)
		for _, found := range parseResponse(buffer[:n], zone, local) {
			b.mu.Lock()
			news, ok := b.table.add(found)
			b.mu.Unlock()
			if !ok {
				continue
			}
			select {
			case b.out <- news:
			case <-ctx.Done():
				return
			}
		}
	}
}

// Key tells Bases apart. It is comparable.
type Key struct {
	Instance, Host string
	Port           uint16
	Version        uint8
	Nonce          [announcement.NonceSize]byte
	ID             [announcement.IDSize]byte
}

// Key returns what tells this Base apart from others, and from itself before a
// restart.
func (f Found) Key() Key {
	k := Key{Instance: f.Instance, Host: f.Host, Version: f.Version, Nonce: f.Nonce, ID: f.ID}
	if len(f.Addrs) > 0 {
		k.Port = f.Addrs[0].Port()
	}
	return k
}

// table is what was found so far, within bounds.
type table struct {
	own     func(announcement.TXT) bool
	entries map[Key]Found
	ownLeft int
	left    int
}

func newTable(own func(announcement.TXT) bool) *table {
	if own == nil {
		own = func(announcement.TXT) bool { return false }
	}
	return &table{own: own, entries: map[Key]Found{}, ownLeft: MaxOwn, left: MaxFound}
}

// add takes one answer and returns the Base as it is now known; ok is false if the answer says
// nothing new, or if there is no room.
func (t *table) add(f Found) (news Found, ok bool) {
	key := f.Key()
	entry, known := t.entries[key]
	if !known {
		left := &t.left
		if t.own(f.TXT) {
			left = &t.ownLeft
		}
		if *left == 0 {
			return Found{}, false
		}
		*left--
		entry = Found{Instance: f.Instance, Host: f.Host, TXT: f.TXT}
	}
	changed := !known || entry.TXT != f.TXT
	entry.TXT = f.TXT
	entry.Addrs = slices.Clone(entry.Addrs) // a value that was passed on is never changed
	kept := make([]netip.Addr, len(entry.Addrs))
	for n, address := range entry.Addrs {
		kept[n] = address.Addr()
	}
	for _, address := range f.Addrs {
		if !slices.Contains(entry.Addrs, address) && hasRoom(kept, address.Addr()) {
			entry.Addrs, kept = append(entry.Addrs, address), append(kept, address.Addr())
			changed = true
		}
	}
	t.entries[key] = entry
	return entry, changed
}
