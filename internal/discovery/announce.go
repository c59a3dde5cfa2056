package discovery

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/announcement"
)

const (
	// repeatAfter is when a first announcement is repeated (RFC 6762, section 8.3).
	repeatAfter = time.Second
	// groupInterval is the shortest time between two answers to the group on one interface
	// (section 6).
	groupInterval = time.Second
	// rescanInterval is how often the interfaces are read again: a machine's addresses change,
	// and then the announcer sends the new ones.
	rescanInterval = 5 * time.Second
	// unicastPerSecond and unicastBurst bound the answers to single hosts, which are larger than
	// the questions.
	unicastPerSecond = 50
	unicastBurst     = 100
)

// Announcer keeps a Base announced.
type Announcer struct {
	sockets []*socket
	chosen  func(net.Interface) bool
	unicast *rate.Limiter
	stop    context.CancelFunc
	running sync.WaitGroup
	changed chan struct{} // capacity 1: there is something new to announce

	mu         sync.Mutex
	service    service
	interfaces []announcedOn
}

// announcedOn is an interface with what was announced on it.
type announcedOn struct {
	net.Interface
	addresses []string
	answered  time.Time // when the group last got an answer
}

// Announce announces a Base until the context ends or the handle is closed. It
// follows the machine's interfaces and addresses as they change.
//
// It does not probe whether another host has the same name (RFC 6762, section 8.1): the host name
// is random, and Apps tell Bases of one name apart by their TXT records.
func Announce(ctx context.Context, announcement Announcement) (*Announcer, error) {
	s, err := newService(announcement)
	if err != nil {
		return nil, err
	}
	sockets, err := listen(true)
	if err != nil {
		return nil, fmt.Errorf("announce the Base (it can still be reached by its address): %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	a := &Announcer{
		sockets: sockets,
		chosen:  announcement.Interfaces,
		unicast: rate.NewLimiter(unicastPerSecond, unicastBurst),
		stop:    stop,
		changed: make(chan struct{}, 1),
		service: s,
	}
	a.rescan()
	for _, s := range sockets {
		a.running.Go(func() { a.answer(s) })
	}
	a.running.Go(func() { a.announce(ctx) })
	return a, nil
}

// Update announces another TXT record from now on, for example when pairing opens.
func (a *Announcer) Update(txt announcement.TXT) {
	a.mu.Lock()
	a.service.txt = txt
	a.mu.Unlock()
	a.announceSoon()
}

// Close withdraws the announcement (a goodbye, RFC 6762, section 10.1) and returns when
// everything has ended.
func (a *Announcer) Close() error {
	a.stop()
	a.running.Wait()
	return nil
}

func (a *Announcer) announceSoon() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// announce sends unsolicited answers to the group: each change twice, and the goodbye.
func (a *Announcer) announce(ctx context.Context) {
	defer func() {
		a.tellAll(answer{goodbye: true})
		for _, s := range a.sockets {
			_ = s.conn.Close()
		}
	}()
	rescan := time.NewTicker(rescanInterval)
	defer rescan.Stop()
	again := time.NewTimer(repeatAfter)
	defer again.Stop()
	a.tellAll(answer{})
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.changed:
			a.tellAll(answer{})
			again.Reset(repeatAfter)
		case <-again.C:
			a.tellAll(answer{})
		case <-rescan.C:
			if a.rescan() {
				a.announceSoon()
			}
		}
	}
}

// rescan reads the interfaces again, and tells whether the addresses of any have changed.
func (a *Announcer) rescan() (changed bool) {
	var now []announcedOn
	for _, i := range usable(a.chosen) {
		on := announcedOn{Interface: i}
		for _, address := range addressesOf(&i) {
			on.addresses = append(on.addresses, address.String())
		}
		now = append(now, on)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for n := range now {
		before := slices.IndexFunc(a.interfaces, func(o announcedOn) bool { return o.Index == now[n].Index })
		if before >= 0 && slices.Equal(a.interfaces[before].addresses, now[n].addresses) {
			now[n].answered = a.interfaces[before].answered
			continue
		}
		changed = true
		for _, s := range a.sockets {
			s.join(&now[n].Interface)
		}
	}
	a.interfaces = now
	return changed
}

// tellAll sends to the group on each interface.
func (a *Announcer) tellAll(what answer) {
	a.mu.Lock()
	service, interfaces := a.service, slices.Clone(a.interfaces)
	a.mu.Unlock()
	for n := range interfaces {
		a.tell(service, what, &interfaces[n].Interface)
	}
}

func (a *Announcer) tell(service service, what answer, i *net.Interface) {
	message := service.pack(what, addressesOf(i))
	for _, s := range a.sockets {
		s.sendToGroup(message, i)
	}
}

// answer answers the questions that arrive on one socket, until it is closed.
func (a *Announcer) answer(s *socket) {
	buffer := make([]byte, maxMessage)
	for {
		n, from, err := s.read(buffer)
		if err != nil {
			return
		}
		// A question from beyond the local network cannot have come by the group.
		if !from.toGroup {
			continue
		}
		q, ok := parseQuery(buffer[:n])
		if !ok {
			continue
		}
		a.mu.Lock()
		service := a.service
		a.mu.Unlock()
		asked, enumeration := service.asks(q)
		if !asked && !enumeration {
			continue
		}
		i := a.answerOn(from.ifIndex)
		switch {
		case i == nil:
		case from.source.Port != mdnsPort:
			if !a.unicast.Allow() {
				continue
			}
			s.sendTo(service.pack(answer{legacy: &q, enumeration: enumeration}, addressesOf(i)), from.source)
		case a.mayTell(i.Index):
			a.tell(service, answer{enumeration: enumeration}, i)
		}
	}
}

// answerOn returns the interface to answer on, nil for one that was not chosen.
func (a *Announcer) answerOn(ifIndex int) *net.Interface {
	a.mu.Lock()
	defer a.mu.Unlock()
	for n := range a.interfaces {
		if a.interfaces[n].Index == ifIndex {
			i := a.interfaces[n].Interface
			return &i
		}
	}
	return nil
}

// mayTell tells whether the group may get another answer on an interface, and counts it as sent.
func (a *Announcer) mayTell(ifIndex int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for n := range a.interfaces {
		if on := &a.interfaces[n]; on.Index == ifIndex && now.Sub(on.answered) >= groupInterval {
			on.answered = now
			return true
		}
	}
	return false
}
