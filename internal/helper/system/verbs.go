package system

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

// verb is one row of the table: all that is decided about a verb of system.proto.
type verb struct {
	// name and number are its own in system.proto; the number is the kind of its frame.
	name   string
	number protoreflect.FieldNumber
	// may are the callers that may ask for it. It is decided before a byte of the
	// request is read.
	may callers
	size
	// work is how many programs it starts, or how often it has systemd do something.
	work int
	// closes: it makes the Base more closed, so it takes nothing from the budgets that a
	// flood of anything else uses up.
	closes bool
	// follows: it only follows what systemd does, and ends when its caller leaves; all
	// else that is recorded goes on to its end.
	follows bool
	do      func(ctx context.Context, h *Helper, c *call) (*systemv1.SystemReply, error)
	// record is how the log of changes has it; nil: it changes nothing for good, or
	// records by itself.
	record *recorded
}

// callers is a set of them.
type callers uint

const (
	byMiddleware callers = 1 << caller.Middleware
	byConsole    callers = 1 << caller.Console
	byRoot       callers = 1 << caller.Root
	byAll                = byMiddleware | byConsole | byRoot
)

func (c callers) has(who caller.Who) bool { return c&(1<<who) != 0 }

// size is what a verb takes of the memory, in bytes. A parsed message takes up to 60
// times what it takes on the wire (a list of empty messages).
type size struct {
	// limit is the longest request.
	limit int
	// holds is what one call has in memory at most: the request, what is made of it, and
	// the answer.
	holds int
}

var (
	bare     = size{256, 256 << 10}     // a request without fields
	short    = size{8 << 10, 768 << 10} // names, numbers, keys
	list     = size{8 << 10, 4 << 20}   // the answer is long: up to 1 MiB
	logs     = size{8 << 10, 8 << 20}   // journal.MaxBytes, and what journalctl prints
	document = size{posture.MaxDocumentSize + 1<<10, 8 << 20}
	preamble = size{release.MaxPreambleSize + 1<<10, 8 << 20} // of a release: parsed once it is verified
	piece    = size{ipc.MaxMessageSize, 4 << 20}              // of an update: bytes, not parsed
)

// call is one request that may be answered.
type call struct {
	who     caller.Who
	request *systemv1.SystemRequest
	send    func(*systemv1.SystemReply) error
}

// progress tells what is being done. Whoever does not read it sees the result all the same.
func (c *call) progress(p *systemv1.Progress) {
	_ = c.send(&systemv1.SystemReply{Result: &systemv1.SystemReply_Progress{Progress: p}})
}

// row makes the row of the verb whose message is M.
func row[M proto.Message](may callers, size size, work int,
	do func(ctx context.Context, h *Helper, c *call, m M) (*systemv1.SystemReply, error)) verb {
	var m M
	message := m.ProtoReflect().Descriptor().FullName()
	fields := verbField.Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if field.Message().FullName() != message {
			continue
		}
		return verb{name: string(field.Name()), number: field.Number(), may: may, size: size, work: work,
			do: func(ctx context.Context, h *Helper, c *call) (*systemv1.SystemReply, error) {
				return do(ctx, h, c, c.request.ProtoReflect().Get(field).Message().Interface().(M))
			}}
	}
	panic(fmt.Sprintf("system: %s is no verb", message))
}

var verbField = (&systemv1.SystemRequest{}).ProtoReflect().Descriptor().Oneofs().ByName("verb")

// closing marks a verb that closes.
func (v verb) closing() verb {
	v.closes = true
	return v
}

// following marks a verb that follows what systemd does.
func (v verb) following() verb {
	v.follows = true
	return v
}

// asks tells whether a verb changes nothing, or only follows.
func (v verb) asks() bool { return v.follows || v.record == nil && !v.closes }

// recorded says how the log of changes has a verb.
func (v verb) recorded(r recorded) verb {
	v.record = &r
	return v
}

// empty is the reply to what is done and has nothing to tell.
func empty(err error) (*systemv1.SystemReply, error) { return &systemv1.SystemReply{}, err }

// verbs is the one table of what can be asked of the helper, by the kind of the frame.
var verbs = tableOf(
	row(byAll, short, 0, func(ctx context.Context, h *Helper, c *call, m *systemv1.AuthorityRequest) (*systemv1.SystemReply, error) {
		// It decides by caller and request itself (internal/protocol/pairing).
		reply, err := h.callAuthority(ctx, c.who, m)
		if err != nil {
			return nil, helperclient.Errorf(helperclient.CodeInternal, "%w", err)
		}
		return &systemv1.SystemReply{Result: &systemv1.SystemReply_Authority{Authority: reply}}, nil
	}).recorded(recordAuthority),

	// How open the Base is.
	row(byAll, list, 0, func(_ context.Context, h *Helper, _ *call, m *systemv1.GetPosture) (*systemv1.SystemReply, error) {
		return h.posture(m.GetNonce(), m.GetChallenge())
	}),
	row(byMiddleware|byRoot, document, 0, func(ctx context.Context, h *Helper, c *call, m *systemv1.Submit) (*systemv1.SystemReply, error) {
		return h.submit(ctx, m, c.progress)
	}).recorded(recordSubmit),
	row(byMiddleware|byRoot, document, 0, func(_ context.Context, h *Helper, _ *call, m *systemv1.ConfirmTry) (*systemv1.SystemReply, error) {
		return h.confirm(m)
	}).recorded(recordConfirm),
	row(byAll, list, 0, func(ctx context.Context, h *Helper, c *call, m *systemv1.Restrict) (*systemv1.SystemReply, error) {
		return h.restrict(ctx, c.who, c.request.GetAppId(), m)
	}).closing().recorded(recordRestrict),
	row(byRoot, document, 0, func(ctx context.Context, h *Helper, c *call, m *systemv1.LocalChange) (*systemv1.SystemReply, error) {
		return h.local(ctx, m, c.progress)
	}).recorded(recordLocal),
	row(byConsole|byRoot, bare, 0, func(_ context.Context, h *Helper, _ *call, _ *systemv1.GetSummary) (*systemv1.SystemReply, error) {
		return h.summary(), nil
	}),
	row(byAll, document, 0, func(_ context.Context, h *Helper, c *call, m *systemv1.FactoryReset) (*systemv1.SystemReply, error) {
		return h.factoryReset(c.who, m)
	}).closing().recorded(recorded{word: changelog.FactoryReset,
		signed: func(r *systemv1.SystemRequest) []byte { return r.GetFactoryReset().GetOrder() }}),
	row(byAll, bare, 0, func(ctx context.Context, h *Helper, c *call, _ *systemv1.WatchSystem) (*systemv1.SystemReply, error) {
		return nil, h.watch(ctx, c.who, c.send)
	}),
	row(byMiddleware, short, 1, func(_ context.Context, h *Helper, _ *call, m *systemv1.Announce) (*systemv1.SystemReply, error) {
		return empty(h.announce(m))
	}),

	// Pairing by an owner's App.
	row(byMiddleware, document, 0, func(_ context.Context, h *Helper, c *call, _ *systemv1.OrderPairing) (*systemv1.SystemReply, error) {
		return h.orderedPairing(c.request)
	}).recorded(recordOrderPairing),
	row(byMiddleware, document, 0, func(_ context.Context, h *Helper, c *call, _ *systemv1.AnswerPairing) (*systemv1.SystemReply, error) {
		return h.orderedPairing(c.request)
	}).recorded(recordAnswerPairing),

	// Bans and audit.
	row(byAll, list, 0, func(ctx context.Context, h *Helper, _ *call, _ *systemv1.ListBans) (*systemv1.SystemReply, error) {
		return h.listBans(ctx)
	}),
	row(byMiddleware|byRoot, document, 1, func(ctx context.Context, h *Helper, c *call, m *systemv1.LiftBan) (*systemv1.SystemReply, error) {
		return h.liftBan(ctx, c.who, m)
	}).recorded(recordLiftBan),
	row(byAll, list, 4, func(ctx context.Context, h *Helper, _ *call, _ *systemv1.RunAudit) (*systemv1.SystemReply, error) {
		return h.runAudit(ctx)
	}),
	row(byMiddleware|byRoot, list, 8, func(ctx context.Context, h *Helper, _ *call, m *systemv1.FixFinding) (*systemv1.SystemReply, error) {
		return h.fixFinding(ctx, m.GetId())
	}).recorded(recorded{word: changelog.FixFinding,
		detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string { return r.GetFixFinding().GetId() }}),

	// Updates. What is installed has to be signed, whoever brings it.
	row(byMiddleware|byRoot, preamble, 1, func(ctx context.Context, h *Helper, _ *call, m *systemv1.BeginUpdate) (*systemv1.SystemReply,
		error) {
		return h.beginUpdate(ctx, m)
	}),
	row(byMiddleware|byRoot, piece, 0, func(_ context.Context, h *Helper, _ *call, m *systemv1.UpdatePiece) (*systemv1.SystemReply, error) {
		return h.updatePiece(m)
	}),
	row(byMiddleware|byRoot, short, 2, func(ctx context.Context, h *Helper, _ *call, m *systemv1.FinishUpdate) (*systemv1.SystemReply, error) {
		return h.finishUpdate(ctx, m)
	}).recorded(recorded{word: changelog.Update, detail: detailFinishUpdate}),
	row(byMiddleware|byRoot, short, 0, func(_ context.Context, h *Helper, _ *call, m *systemv1.AbortUpdate) (*systemv1.SystemReply, error) {
		return h.abortUpdate(m)
	}),
	row(byMiddleware|byRoot, short, 1, func(_ context.Context, h *Helper, _ *call, m *systemv1.ConfirmUpdate) (*systemv1.SystemReply, error) {
		return h.confirmUpdate(m)
	}),
	row(byMiddleware|byRoot, short, 2, func(ctx context.Context, h *Helper, _ *call, _ *systemv1.StartOtherSlot) (*systemv1.SystemReply,
		error) {
		return h.startOtherSlot(ctx)
	}).recorded(recorded{word: changelog.Update, detail: detailFinishUpdate}),
	row(byAll, short, 1, func(ctx context.Context, h *Helper, _ *call, _ *systemv1.GetUpdate) (*systemv1.SystemReply, error) {
		return h.getUpdate(ctx)
	}),
	row(byMiddleware|byRoot, short, 0, func(ctx context.Context, h *Helper, c *call, _ *systemv1.WatchUpdate) (*systemv1.SystemReply, error) {
		return nil, h.watchUpdate(ctx, c.send)
	}),
	row(byRoot, short, 2, func(ctx context.Context, h *Helper, _ *call, _ *systemv1.GetHealth) (*systemv1.SystemReply, error) {
		return h.health(ctx)
	}),

	// The machine and its services.
	row(byAll, short, 0, func(_ context.Context, h *Helper, _ *call, _ *systemv1.GetMachine) (*systemv1.SystemReply, error) {
		return &systemv1.SystemReply{Result: &systemv1.SystemReply_Machine{Machine: h.machine()}}, nil
	}),
	row(byMiddleware|byRoot, short, 0, func(ctx context.Context, h *Helper, _ *call, _ *systemv1.ListServices) (*systemv1.SystemReply, error) {
		return servicesReply(h.services.Get(ctx))
	}),
	row(byMiddleware|byRoot, short, 4, func(ctx context.Context, h *Helper, c *call, m *systemv1.ChangeService) (*systemv1.SystemReply,
		error) {
		return servicesReply(h.changeService(ctx, c.who, m.GetName(), m.GetAction()))
	}).recorded(recorded{word: changelog.Service, detail: detailService}),
	row(byMiddleware|byRoot, logs, 2, func(ctx context.Context, h *Helper, c *call, m *systemv1.ReadLogs) (*systemv1.SystemReply, error) {
		return nil, h.readLogs(ctx, c.who, m.GetRequest(), c.send)
	}),
	row(byMiddleware|byRoot, list, 0, func(_ context.Context, h *Helper, _ *call, _ *systemv1.ListTimeZones) (*systemv1.SystemReply, error) {
		return h.listTimeZones()
	}),
	row(byMiddleware|byRoot, short, 1, func(ctx context.Context, h *Helper, _ *call, m *systemv1.SetTimeZone) (*systemv1.SystemReply, error) {
		return empty(h.setTimeZone(ctx, m.GetName()))
	}).recorded(recorded{word: changelog.TimeZone,
		detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string { return r.GetSetTimeZone().GetName() }}),
	row(byMiddleware|byRoot, short, 2, func(ctx context.Context, h *Helper, c *call, _ *systemv1.Reboot) (*systemv1.SystemReply, error) {
		return empty(h.stopMachine(ctx, c.who, false, c.request.GetAppId()))
	}).recorded(recorded{word: changelog.Reboot}),
	row(byMiddleware|byRoot, short, 2, func(ctx context.Context, h *Helper, c *call, _ *systemv1.PowerOff) (*systemv1.SystemReply, error) {
		return empty(h.stopMachine(ctx, c.who, true, c.request.GetAppId()))
	}).recorded(recorded{word: changelog.PowerOff}),
	row(byMiddleware|byRoot, logs, 4, func(ctx context.Context, h *Helper, c *call, _ *systemv1.InstallDebianUpdates) (*systemv1.SystemReply,
		error) {
		return empty(h.installDebianUpdates(ctx, c.who, c.send))
	}).following().recorded(recorded{word: changelog.DebianUpdates}),

	// The log of changes.
	row(byMiddleware|byRoot, list, 0, func(_ context.Context, h *Helper, _ *call, m *systemv1.ListChanges) (*systemv1.SystemReply, error) {
		return h.listChanges(m)
	}),
	row(byMiddleware, short, 0, func(_ context.Context, h *Helper, c *call, m *systemv1.RecordChange) (*systemv1.SystemReply, error) {
		return h.recordChange(c.who, c.request.GetAppId(), m)
	}),
)

// tableOf orders rows by their number.
func tableOf(rows ...verb) map[uint16]verb {
	table := map[uint16]verb{}
	for _, v := range rows {
		table[uint16(v.number)] = v
	}
	return table
}
