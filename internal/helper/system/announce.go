package system

import (
	"context"
	"reflect"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/discovery"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/turns"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// Announcer tells the local network (Avahi).
type Announcer interface {
	Announce(ctx context.Context, a generation.Announcement) error
}

// announceAgain is how soon an announcement that failed is tried again.
const announceAgain = 10 * time.Second

// announce takes from the Middleware what only it knows. The name and the port are
// not its to say, so that it can announce nothing but this Base.
func (h *Helper) announce(request *systemv1.Announce) error {
	txt := discovery.TXT{Version: uint8(request.GetVersion()), PairingOpen: request.GetPairingOpen()}
	if request.GetVersion() == 0 || request.GetVersion() > 255 ||
		copy(txt.Nonce[:], request.GetNonce()) != len(request.GetNonce()) || len(request.GetNonce()) != len(txt.Nonce) ||
		copy(txt.ID[:], request.GetId()) != len(request.GetId()) || len(request.GetId()) != len(txt.ID) {
		return helperclient.Errorf(helperclient.CodeMalformed, "an announcement has a version of 1 to 255, a nonce of %d bytes and an id of %d",
			len(txt.Nonce), len(txt.ID))
	}
	h.mu.Lock()
	h.announced = &txt
	h.mu.Unlock()
	h.announcer.Wake()
	return nil
}

// keepAnnouncing tells the local network what has changed, until ctx ends. It is nobody
// else's work: what closes must not wait for Avahi.
func (h *Helper) keepAnnouncing(ctx context.Context) {
	var told generation.Announcement
	for {
		h.mu.Lock()
		wanted, known := generation.Announcement{Name: h.inForceLocked().NodeName, Port: posture.EntryPort}, h.announced != nil
		if known {
			wanted.TXT = h.announcedLocked().Strings()
		}
		h.mu.Unlock()
		var again <-chan time.Time
		if known && !reflect.DeepEqual(wanted, told) {
			asking, cancel := context.WithTimeout(ctx, turns.AskTime)
			err := h.config.Announcer.Announce(asking, wanted)
			cancel()
			if err == nil {
				told = wanted
			} else if ctx.Err() == nil {
				h.log.Error("the local network could not be told of the Base", "error", err)
				again = time.After(announceAgain)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-h.announcer:
		case <-again:
		}
	}
}
