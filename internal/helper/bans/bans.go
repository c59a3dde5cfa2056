// Package bans lists whom fail2ban bans, tells those who watch what is new, and lifts a ban by an
// owner's order.
package bans

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/events"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/turns"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// interval is how often fail2ban is asked whom it bans. Asking takes a
// process, which takes a tenth of a second.
const interval = 30 * time.Second

// Banner is fail2ban, as far as it can be asked.
type Banner interface {
	// Bans lists and counts the banned addresses.
	Bans(ctx context.Context) (bruteforce.Bans, error)
	// Lift lets an address in again, in all jails. False: it was not banned.
	Lift(ctx context.Context, addr netip.Addr) (bool, error)
}

// Ledger takes what owners have signed.
type Ledger interface {
	Update(call func(l *posture.Ledger, now time.Duration) (posture.Output, error)) error
}

// Bans asks fail2ban.
type Bans struct {
	banner Banner
	ledger Ledger
	events *events.Hub
	log    *slog.Logger

	now  *turns.Shared[bruteforce.Bans] // asked for all who want to know at the same time
	turn turns.Turn                     // held while fail2ban is asked; guards known
	// known are those that were listed last.
	known []bruteforce.Ban
}

// New returns the Bans of a fail2ban.
func New(banner Banner, ledger Ledger, hub *events.Hub, log *slog.Logger) *Bans {
	b := &Bans{banner: banner, ledger: ledger, events: hub, log: log, turn: turns.New()}
	b.now = turns.NewShared(b.ask)
	return b
}

// List answers whom fail2ban bans.
func (b *Bans) List(ctx context.Context, _ *caller.Call, _ *systemv1.ListBans) (*systemv1.SystemReply, error) {
	bans, err := b.now.Get(ctx)
	if err != nil {
		return nil, err
	}
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_Bans{Bans: &systemv1.BansResult{
		Bans: bansToProto(bans.List), Current: uint64(max(bans.Current, 0)), Total: uint64(max(bans.Total, 0))}}}, nil
}

// ask asks fail2ban, one question at a time, and tells watchers what is new.
func (b *Bans) ask(ctx context.Context) (bruteforce.Bans, error) {
	if err := b.turn.Take(ctx); err != nil {
		return bruteforce.Bans{}, err
	}
	defer b.turn.End()
	ctx, cancel := context.WithTimeout(ctx, turns.AskTime)
	defer cancel()
	bans, err := b.banner.Bans(ctx)
	if err != nil {
		return bruteforce.Bans{}, helperclient.Errorf(helperclient.CodeInternal, "ask fail2ban for its bans: %w", err)
	}
	banned, lifted := without(bans.List, b.known), without(b.known, bans.List)
	if len(bans.List) < bans.Current {
		lifted = nil // an address that is not listed may still be banned
	}
	b.known = bans.List
	b.events.Note(func(is *systemv1.SystemEvent) { is.Bans = uint32(len(bans.List)) })
	if len(banned)+len(lifted) > 0 {
		b.events.Publish(&basev1.Event{Event: &basev1.Event_BansChanged{
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
		list = append(list, &basev1.Ban{Jail: ban.Jail, Address: ban.Subject(), Since: basev1.Stamp(ban.Since), Until: basev1.Stamp(ban.Until)})
	}
	return list
}

// Lift takes an owner's signed order, or root's word.
func (b *Bans) Lift(ctx context.Context, c *caller.Call, request *systemv1.LiftBan) (*systemv1.SystemReply, error) {
	var addr netip.Addr
	var err error
	if order := request.GetPlain(); order != nil {
		if c.Who != caller.Root {
			return nil, helperclient.Errorf(helperclient.CodePermission, "%s may not lift a ban without an owner's signature", c.Who)
		}
		if addr, err = netip.ParseAddr(order.GetAddress()); err != nil {
			return nil, helperclient.Errorf(helperclient.CodeMalformed, "%q is not an address: %w", order.GetAddress(), err)
		}
	} else {
		err = b.ledger.Update(func(l *posture.Ledger, now time.Duration) (out posture.Output, err error) {
			addr, out, err = l.LiftBan(request.GetOrder(), now)
			return out, err
		})
		if err != nil {
			return nil, err
		}
	}
	if err := b.turn.Take(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, turns.AskTime)
	defer cancel()
	lifted, err := b.banner.Lift(ctx, addr)
	b.turn.End()
	if err != nil {
		return nil, helperclient.Errorf(helperclient.CodeInternal, "lift the ban of %s: %w", addr, err)
	}
	b.log.Info("a ban was lifted", "audit", true, "by", c.Who, "addr", addr, "was_banned", lifted)
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_LiftBan{LiftBan: &systemv1.LiftBanResult{Lifted: lifted}}}, nil
}

// Run looks for new bans while somebody watches.
func (b *Bans) Run(ctx context.Context) {
	turns.Every(ctx, interval, func() {
		if watched, _ := b.events.Watched(); !watched {
			return
		}
		if _, err := b.ask(ctx); err != nil && ctx.Err() == nil {
			b.log.Warn("the bans are not known", "error", err)
		}
	})
}
