package system

import (
	"context"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/discovery"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// Announcer tells the local network (Avahi).
type Announcer interface {
	Announce(ctx context.Context, a generation.Announcement) error
}

// announce takes from the Middleware what only it knows. The name and the port are
// not its to say, so that it can announce nothing but this Base.
func (h *Helper) announce(ctx context.Context, request *systemv1.Announce) error {
	txt := discovery.TXT{Version: uint8(request.GetVersion()), PairingOpen: request.GetPairingOpen()}
	if request.GetVersion() == 0 || request.GetVersion() > 255 ||
		copy(txt.Nonce[:], request.GetNonce()) != len(request.GetNonce()) || len(request.GetNonce()) != len(txt.Nonce) ||
		copy(txt.ID[:], request.GetId()) != len(request.GetId()) || len(request.GetId()) != len(txt.ID) {
		return helperclient.Errorf(helperclient.CodeMalformed, "an announcement has a version of 1 to 255, a nonce of %d bytes and an id of %d", len(txt.Nonce), len(txt.ID))
	}
	h.mu.Lock()
	same := h.announced != nil && *h.announced == txt
	h.announced = &txt
	if !same {
		h.announcedName = ""
	}
	h.mu.Unlock()
	return h.announceName(ctx)
}

// announceName tells the network when the record or the name has changed.
func (h *Helper) announceName(ctx context.Context) error {
	h.announceMu.Lock()
	defer h.announceMu.Unlock()
	h.mu.Lock()
	name, txt := h.inForceLocked().NodeName, h.announced
	if txt == nil || h.announcedName == name {
		h.mu.Unlock()
		return nil
	}
	h.announcedName = name
	h.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	err := h.config.Announcer.Announce(ctx, generation.Announcement{Name: name, Port: posture.EntryPort, TXT: txt.Strings()})
	if err != nil {
		h.log.Error("the local network could not be told", "error", err)
		h.mu.Lock()
		h.announcedName = "" // try again
		h.mu.Unlock()
		return helperclient.Errorf(helperclient.CodeInternal, "announce the Base to the local network: %w", err)
	}
	return nil
}
