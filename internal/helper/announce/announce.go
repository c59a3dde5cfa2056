// Package announce has the local network told of the Base, and again whenever something of that
// has changed.
package announce

import (
	"context"
	"log/slog"
	"reflect"
	"sync"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/turns"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/announcement"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// Network is who tells the local network (Avahi).
type Network interface {
	Announce(ctx context.Context, a generation.Announcement) error
}

// announceAgain is how soon an announcement that failed is tried again.
const announceAgain = 10 * time.Second

// Announcer keeps the local network told.
type Announcer struct {
	network Network
	name    func() string // of the Base, as it is to be in force
	claim   ClaimID
	changed turns.Signal // the name, the claim or the record may be another
	log     *slog.Logger

	mu sync.Mutex
	// record is what the Middleware wants told, nil until it says so.
	record *announcement.TXT
}

// ClaimID returns the id by which the App of an open claim recognises a record with this nonce; ok
// is false if no claim is open.
type ClaimID func(nonce []byte) (id [8]byte, ok bool)

// New returns an Announcer, which looks again when changed is woken.
func New(network Network, name func() string, claim ClaimID, changed turns.Signal, log *slog.Logger) *Announcer {
	return &Announcer{network: network, name: name, claim: claim, changed: changed, log: log}
}

// Announce takes from the Middleware what only it knows. The name and the port are
// not its to say, so that it can announce nothing but this Base.
func (a *Announcer) Announce(_ context.Context, _ *caller.Call, request *systemv1.Announce) (*systemv1.SystemReply, error) {
	txt := announcement.TXT{Version: uint8(request.GetVersion()), PairingOpen: request.GetPairingOpen()}
	if request.GetVersion() == 0 || request.GetVersion() > 255 ||
		copy(txt.Nonce[:], request.GetNonce()) != len(request.GetNonce()) || len(request.GetNonce()) != len(txt.Nonce) ||
		copy(txt.ID[:], request.GetId()) != len(request.GetId()) || len(request.GetId()) != len(txt.ID) {
		return nil, helperclient.Errorf(helperclient.CodeMalformed,
			"an announcement has a version of 1 to 255, a nonce of %d bytes and an id of %d", len(txt.Nonce), len(txt.ID))
	}
	a.mu.Lock()
	a.record = &txt
	a.mu.Unlock()
	a.changed.Wake()
	return &systemv1.SystemReply{}, nil
}

// Run tells the local network what has changed, until ctx ends. It is nobody
// else's work: what closes must not wait for Avahi.
func (a *Announcer) Run(ctx context.Context) {
	var told generation.Announcement
	for {
		wanted := generation.Announcement{Name: a.name(), Port: posture.EntryPort}
		a.mu.Lock()
		known := a.record != nil
		if known {
			txt := *a.record
			// Before there is an owner no App knows the Base but that of the claim.
			if id, open := a.claim(txt.Nonce[:]); open {
				txt.ID = id
			}
			wanted.TXT = txt.Strings()
		}
		a.mu.Unlock()
		var again <-chan time.Time
		if known && !reflect.DeepEqual(wanted, told) {
			asking, cancel := context.WithTimeout(ctx, turns.AskTime)
			err := a.network.Announce(asking, wanted)
			cancel()
			if err == nil {
				told = wanted
			} else if ctx.Err() == nil {
				a.log.Error("the local network could not be told of the Base", "error", err)
				again = time.After(announceAgain)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-a.changed:
		case <-again:
		}
	}
}
