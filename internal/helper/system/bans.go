package system

import (
	"context"
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/turns"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// banInterval is how often fail2ban is asked whom it bans. Asking takes a
// process, which takes a tenth of a second.
const banInterval = 30 * time.Second

// Banner is fail2ban, as far as it can be asked.
type Banner interface {
	// Bans lists and counts who is banned.
	Bans(ctx context.Context) (bruteforce.Bans, error)
	// Lift lets an address in again, in all jails. False: it was not banned.
	Lift(ctx context.Context, addr netip.Addr) (bool, error)
}

func (h *Helper) listBans(ctx context.Context) (*systemv1.SystemReply, error) {
	bans, err := h.bansNow.Get(ctx)
	if err != nil {
		return nil, err
	}
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_Bans{Bans: &systemv1.BansResult{
		Bans: bansToProto(bans.List), Current: uint64(max(bans.Current, 0)), Total: uint64(max(bans.Total, 0))}}}, nil
}

// askBans asks fail2ban, one question at a time, and tells watchers what is new.
func (h *Helper) askBans(ctx context.Context) (bruteforce.Bans, error) {
	if err := h.bansTurn.Take(ctx); err != nil {
		return bruteforce.Bans{}, err
	}
	defer h.bansTurn.End()
	ctx, cancel := context.WithTimeout(ctx, turns.AskTime)
	defer cancel()
	bans, err := h.config.Banner.Bans(ctx)
	if err != nil {
		return bruteforce.Bans{}, helperclient.Errorf(helperclient.CodeInternal, "ask fail2ban for its bans: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	banned, lifted := without(bans.List, h.bans), without(h.bans, bans.List)
	if len(bans.List) < bans.Current {
		lifted = nil // who is not listed may be banned all the same
	}
	h.bans = bans.List
	if len(banned)+len(lifted) > 0 {
		h.publishLocked(&basev1.Event{Event: &basev1.Event_BansChanged{
			BansChanged: &basev1.BansChangedEvent{Banned: bansToProto(banned), Lifted: bansToProto(lifted)}}})
	}
	return bans, nil
}

// without returns the bans of a that b does not have.
func without(a, b []bruteforce.Ban) []bruteforce.Ban {
	type key struct {
		jail    string
		addr    netip.Addr
		network netip.Prefix
	}
	known := make(map[key]bool, len(b))
	for _, ban := range b {
		known[key{ban.Jail, ban.Addr, ban.Network}] = true
	}
	var list []bruteforce.Ban
	for _, ban := range a {
		if !known[key{ban.Jail, ban.Addr, ban.Network}] {
			list = append(list, ban)
		}
	}
	return list
}

func bansToProto(bans []bruteforce.Ban) []*basev1.Ban {
	var list []*basev1.Ban
	for _, ban := range bans {
		list = append(list, &basev1.Ban{Jail: ban.Jail, Address: ban.Subject(), Since: stamp(ban.Since), Until: stamp(ban.Until)})
	}
	return list
}

// stamp is a time on the wire, in seconds; absent if it is not known.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() || t.Unix() == 0 {
		return nil
	}
	return &timestamppb.Timestamp{Seconds: t.Unix()}
}

// liftBan takes an owner's signed order, or root's word.
func (h *Helper) liftBan(ctx context.Context, who caller.Who, request *systemv1.LiftBan) (*systemv1.SystemReply, error) {
	var addr netip.Addr
	var err error
	if order := request.GetPlain(); order != nil {
		if who != caller.Root {
			return nil, helperclient.Errorf(helperclient.CodePermission, "%s may not lift a ban without an owner's signature", who)
		}
		if addr, err = netip.ParseAddr(order.GetAddress()); err != nil {
			return nil, helperclient.Errorf(helperclient.CodeMalformed, "%q is not an address: %w", order.GetAddress(), err)
		}
	} else {
		h.mu.Lock()
		err = h.updateLocked(func() (out posture.Output, err error) {
			addr, out, err = h.ledger.LiftBan(request.GetOrder(), h.config.Clock())
			return out, err
		})
		h.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
	if err := h.bansTurn.Take(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, turns.AskTime)
	defer cancel()
	lifted, err := h.config.Banner.Lift(ctx, addr)
	h.bansTurn.End()
	if err != nil {
		return nil, helperclient.Errorf(helperclient.CodeInternal, "lift the ban of %s: %w", addr, err)
	}
	h.log.Info("a ban was lifted", "audit", true, "by", who, "addr", addr, "was_banned", lifted)
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_LiftBan{LiftBan: &systemv1.LiftBanResult{Lifted: lifted}}}, nil
}

// watchBans looks for new bans while somebody watches.
func (h *Helper) watchBans(ctx context.Context) {
	turns.Every(ctx, banInterval, func() {
		h.mu.Lock()
		watched := len(h.events.watchers) > 0
		h.mu.Unlock()
		if !watched {
			return
		}
		if _, err := h.askBans(ctx); err != nil && ctx.Err() == nil {
			h.log.Warn("the bans are not known", "error", err)
		}
	})
}
