package chaindisk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/events"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/turns"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	// Interval is how often the disks are looked at by themselves.
	Interval = time.Hour
	// fresh is how long a list is used for the next who ask.
	fresh = time.Second
	// maxTroubles is how many troubles are told of at once.
	maxTroubles = 8
)

// Machine is what the helper has systemd do.
type Machine interface {
	// LookAtDisks runs LookUnit, and waits for its end.
	LookAtDisks(ctx context.Context) error
	// PrepareDisk stops the node, which may take ten minutes, runs ReadyUnit, and starts the node.
	PrepareDisk(ctx context.Context) error
}

// Ledger takes what owners have signed.
type Ledger interface {
	Update(call func(l *posture.Ledger, now time.Duration) (posture.Output, error)) error
}

// Config is what Verbs are made of.
type Config struct {
	Machine Machine // nil: there are no disks to manage here
	Store   Store
	Ledger  Ledger
	// Fit has the node keep no more of the chain than a disk of a size in bytes holds, from its next
	// start on.
	Fit    func(ctx context.Context, size uint64) error
	Events *events.Hub
	// Clock does not jump.
	Clock func() time.Duration
	// Random is where UUIDs come from; nil: crypto/rand.
	Random io.Reader
	Log    *slog.Logger
}

// Verbs are the helper's part: they list the disks, and take owners' orders.
type Verbs struct {
	config  Config
	now     *turns.Shared[[]*Disk] // looked for all who ask at the same time
	turn    turns.Turn             // guards what follows, and order and choice on the disk
	at      time.Duration          // when list was made; 0: never
	list    atomic.Pointer[[]*Disk]
	told    memory
	ordered turns.Signal
}

// NewVerbs returns the Verbs of a machine.
func NewVerbs(config Config) *Verbs {
	if config.Random == nil {
		config.Random = rand.Reader
	}
	v := &Verbs{config: config, turn: turns.New(), ordered: turns.NewSignal()}
	v.now = turns.NewShared(func(ctx context.Context) ([]*Disk, error) {
		if err := v.turn.Take(ctx); err != nil {
			return nil, err
		}
		defer v.turn.End()
		return v.look(ctx)
	})
	return v
}

// look looks at the disks, unless that was done a moment ago. The caller has the turn.
func (v *Verbs) look(ctx context.Context) ([]*Disk, error) {
	if v.config.Machine == nil {
		return nil, helperclient.Errorf(helperclient.CodeInternal, "nothing manages disks here")
	}
	if v.at != 0 && v.config.Clock()-v.at < fresh {
		return *v.list.Load(), nil
	}
	err := v.config.Machine.LookAtDisks(ctx)
	var list []*Disk
	if err == nil {
		list, err = v.config.Store.List()
	}
	if err != nil {
		return nil, helperclient.Errorf(helperclient.CodeInternal, "look at the disks: %w", err)
	}
	v.at = max(1, v.config.Clock())
	v.list.Store(&list)
	for _, event := range v.told.look(troubles(list, v.chain(list))) {
		v.config.Log.Warn("a disk is in trouble", "trouble", event.GetDiskTrouble().GetTrouble())
		v.config.Events.Publish(event)
	}
	return list, nil
}

// chain says how the disk of the chain is. A list of nil: nobody has looked yet.
func (v *Verbs) chain(list []*Disk) *basev1.ChainDisk {
	order, orderErr := v.config.Store.Order()
	chosen, err := v.config.Store.Chosen()
	trouble := v.config.Store.Trouble()
	switch err = errors.Join(orderErr, err); {
	case err != nil:
		return &basev1.ChainDisk{State: basev1.ChainDisk_STATE_TROUBLE, Trouble: short(reason.Of(err))}
	case trouble != "" && (order != nil || chosen != nil):
		return &basev1.ChainDisk{State: basev1.ChainDisk_STATE_TROUBLE, Trouble: trouble}
	case order != nil:
		return &basev1.ChainDisk{State: basev1.ChainDisk_STATE_PREPARING}
	case chosen == nil:
		return &basev1.ChainDisk{State: basev1.ChainDisk_STATE_NONE}
	}
	for _, d := range list {
		if d.GetChainUuid() == chosen.UUID {
			return &basev1.ChainDisk{State: basev1.ChainDisk_STATE_READY}
		}
	}
	if list == nil {
		return &basev1.ChainDisk{State: basev1.ChainDisk_STATE_READY}
	}
	return &basev1.ChainDisk{State: basev1.ChainDisk_STATE_TROUBLE, Trouble: errMissing.Error()}
}

// List answers which disks there are.
func (v *Verbs) List(ctx context.Context, _ *caller.Call, _ *systemv1.ListDisks) (*systemv1.SystemReply, error) {
	list, err := v.now.Get(ctx)
	if err != nil {
		return nil, err
	}
	chosen, _ := v.config.Store.Chosen() // chain tells of a fault
	result := &systemv1.DisksResult{Chain: v.chain(list)}
	for _, d := range list {
		shown := proto.CloneOf(d)
		shown.Chosen = chosen != nil && d.GetChainUuid() == chosen.UUID
		result.Disks = append(result.Disks, shown)
	}
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_Disks{Disks: result}}, nil
}

// Use takes an owner's signed order. It is compared with what there is now: the Middleware carries
// it, and has carried what the owner has seen.
func (v *Verbs) Use(ctx context.Context, _ *caller.Call, request *systemv1.UseDisk) (*systemv1.SystemReply, error) {
	var order *systemv1.DiskOrder
	err := v.config.Ledger.Update(func(l *posture.Ledger, now time.Duration) (out posture.Output, err error) {
		order, out, err = l.UseDisk(request.GetOrder(), now)
		return out, err
	})
	if err != nil {
		return nil, err
	}
	if err := v.turn.Take(ctx); err != nil {
		return nil, err
	}
	defer v.turn.End()
	v.at = 0
	list, err := v.look(ctx)
	if err != nil {
		return nil, err
	}
	disk, err := Check(list, order)
	if err != nil {
		return nil, helperclient.Errorf(helperclient.CodeRefused, "%w", err)
	}
	waits, err := v.config.Store.Order()
	if err == nil && waits != nil && v.config.Store.Trouble() == "" {
		return nil, helperclient.Errorf(helperclient.CodeBusy, "another disk is being prepared; see 'bitbox-app disk'")
	}
	wanted := Order{ID: disk.GetId(), UUID: disk.GetChainUuid(), Erase: order.GetErase() || disk.GetChainUuid() == "",
		Content: disk.GetContent()}
	if chosen, _ := v.config.Store.Chosen(); !wanted.Erase && chosen != nil && chosen.UUID == wanted.UUID {
		return nil, helperclient.Errorf(helperclient.CodeNothing, "it is the disk of the chain already")
	}
	if wanted.Erase {
		if wanted.UUID, err = newUUID(v.config.Random); err != nil {
			return nil, helperclient.Errorf(helperclient.CodeInternal, "%w", err)
		}
	}
	if disk.GetSmall() {
		if err := v.config.Fit(ctx, disk.GetSizeBytes()); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(v.config.Store.WriteTrouble(nil), v.config.Store.WriteOrder(wanted)); err != nil {
		return nil, helperclient.Errorf(helperclient.CodeStorage, "%w; nothing has changed", err)
	}
	v.at = 0
	v.config.Log.Warn("a disk is prepared for the chain", "audit", true, "disk", disk.GetModel(), "serial_end", disk.GetSerialEnd(),
		"erased", wanted.Erase)
	v.ordered.Wake()
	return &systemv1.SystemReply{}, nil
}

// newUUID draws a UUID of version 4 (RFC 9562).
func newUUID(random io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", reason.Errorf("draw a UUID: %w", err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}

// Known is what is known of the disks without asking: their troubles, and how that of the chain is.
func (v *Verbs) Known() (trouble []string, chain *basev1.ChainDisk) {
	if v.config.Machine == nil {
		return nil, nil
	}
	var list []*Disk
	if known := v.list.Load(); known != nil {
		list = *known
	}
	chain = v.chain(list)
	return troubles(list, chain), chain
}

// Run follows orders, and looks at the disks at intervals, until ctx ends.
func (v *Verbs) Run(ctx context.Context) {
	if v.config.Machine == nil {
		return
	}
	order, _ := v.config.Store.Order()
	erasing, _ := v.config.Store.Erasing()
	if order != nil || erasing != nil {
		v.ordered.Wake() // the helper was ended while it followed an order, or the Base was reset
	}
	ticker := time.NewTicker(Interval)
	defer ticker.Stop()
	for {
		if _, err := v.now.Get(ctx); err != nil && ctx.Err() == nil {
			v.config.Log.Warn("the disks are not known", "error", err)
		}
		select {
		case <-ticker.C:
		case <-v.ordered:
			if err := v.config.Machine.PrepareDisk(ctx); err != nil && ctx.Err() == nil {
				v.config.Log.Error("the disk of the chain is not ready", "audit", true, "error", err)
			}
			v.forget(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// forget has the next look be one.
func (v *Verbs) forget(ctx context.Context) {
	if v.turn.Take(ctx) == nil {
		v.at = 0
		v.turn.End()
	}
}

// troubles says what is wrong with disks, for people.
func troubles(list []*Disk, chain *basev1.ChainDisk) (all []string) {
	if chain.GetState() == basev1.ChainDisk_STATE_TROUBLE {
		all = append(all, chain.GetTrouble())
	}
	all = append(all, Failing(list)...)
	return all[:min(len(all), maxTroubles)]
}

// Failing names the disks that say that they are failing, for people.
func Failing(list []*Disk) (all []string) {
	for _, d := range list {
		if d.GetHealth().GetVerdict() == basev1.DiskHealth_VERDICT_FAILING {
			all = append(all, fmt.Sprintf("the disk %s (%s) is failing: %s", nameOf(d), d.GetName(), d.GetHealth().GetReason()))
		}
	}
	return all
}

// nameOf is how people recognise a disk.
func nameOf(d *Disk) string {
	return strings.TrimSpace(strings.Join([]string{d.GetModel(), "…" + d.GetSerialEnd()}, " "))
}

// memory remembers what was told of, so that each trouble is told once until it is over. It is
// pure.
type memory map[string]bool

// look returns an event for each new trouble.
func (m *memory) look(troubles []string) (news []*basev1.Event) {
	now := memory{}
	for _, trouble := range troubles {
		if now[trouble] = true; !(*m)[trouble] {
			news = append(news, &basev1.Event{Event: &basev1.Event_DiskTrouble{DiskTrouble: &basev1.DiskTroubleEvent{Trouble: trouble}}})
		}
	}
	*m = now
	return news
}
