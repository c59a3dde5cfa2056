package update

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/turns"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

// watchEvery is how often a watcher's call reads the journal of an update, which another
// process writes.
const watchEvery = 250 * time.Millisecond

// codes says which code the errors of an update have. All others are internal.
var codes = []struct {
	err  error
	code helperclient.Code
}{
	{ErrBusy, helperclient.CodeBusy}, {ErrNoSpace, helperclient.CodeStorage}, {ErrNoUpload, helperclient.CodeNothing},
	{ErrNotOnTrial, helperclient.CodeNothing},
	{ErrNoKey, helperclient.CodeRefused}, {ErrNotForThis, helperclient.CodeRefused},
	{ErrOutOfOrder, helperclient.CodeMalformed},
	{release.ErrSignature, helperclient.CodeRefused}, {release.ErrDamaged, helperclient.CodeRefused},
	{release.ErrNotARelease, helperclient.CodeRefused}, {release.ErrFormat, helperclient.CodeRefused},
}

func refusal(err error) error {
	if err == nil {
		return nil
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return helperclient.Errorf(c.code, "%w", err)
		}
	}
	return helperclient.Errorf(helperclient.CodeInternal, "%w", err)
}

// Verbs answers what the helper is asked about updates.
type Verbs struct {
	receiver *Receiver
	// debian are Debian's updates that wait.
	debian func() (waiting []string, unknown string)
	// oldest is the oldest version that may be gone back to.
	oldest func() string
	// mayRestart refuses to restart the machine for a caller.
	mayRestart func(context.Context, caller.Who) error
	log        *slog.Logger
}

// NewVerbs returns the Verbs of a Receiver. debian are Debian's updates that
// wait; unknown says why they are not known. oldest is the oldest version that may be gone back to.
// mayRestart refuses to restart the machine for a caller: an update of the image does that.
func NewVerbs(receiver *Receiver, debian func() (waiting []string, unknown string), oldest func() string,
	mayRestart func(context.Context, caller.Who) error, log *slog.Logger) *Verbs {
	return &Verbs{receiver: receiver, debian: debian, oldest: oldest, mayRestart: mayRestart, log: log}
}

// Begin begins an upload.
func (v *Verbs) Begin(ctx context.Context, _ *caller.Call, request *systemv1.BeginUpdate) (*systemv1.SystemReply, error) {
	id, err := v.receiver.Begin(ctx, request.GetHeader(), request.GetOffset())
	if err != nil {
		return nil, refusal(err)
	}
	v.log.Info("an update is being received", "audit", true)
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_UpdateBegan{UpdateBegan: &systemv1.UpdateBegan{Upload: id}}}, nil
}

// Piece takes a piece of an upload.
func (v *Verbs) Piece(_ context.Context, _ *caller.Call, request *systemv1.UpdatePiece) (*systemv1.SystemReply, error) {
	return &systemv1.SystemReply{}, refusal(v.receiver.Piece(request.GetUpload(), request.GetOffset(), request.GetData()))
}

// Abort gives an upload up.
func (v *Verbs) Abort(_ context.Context, _ *caller.Call, request *systemv1.AbortUpdate) (*systemv1.SystemReply, error) {
	v.receiver.Abort(request.GetUpload())
	return &systemv1.SystemReply{}, nil
}

// Finish has an upload that is complete installed.
func (v *Verbs) Finish(ctx context.Context, c *caller.Call, request *systemv1.FinishUpdate) (*systemv1.SystemReply, error) {
	if v.receiver.IsImage() {
		if err := v.mayRestart(ctx, c.Who); err != nil {
			return nil, err // what was brought stays: the App goes on with it
		}
	}
	j, err := v.receiver.Finish(ctx, request.GetUpload())
	if err != nil {
		return nil, refusal(err)
	}
	v.log.Warn("an update is being installed", "audit", true, "id", j.ID, "from", j.From, "to", j.To)
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_Update{Update: message(j)}}, nil
}

// Confirm takes the Middleware's word: what it can bring about by a lie is that a genuine, newer
// version stays that is well.
func (v *Verbs) Confirm(_ context.Context, _ *caller.Call, request *systemv1.ConfirmUpdate) (*systemv1.SystemReply, error) {
	return &systemv1.SystemReply{}, refusal(v.receiver.Confirm(request.GetId()))
}

// StartOther goes back to the version in the other slot.
func (v *Verbs) StartOther(ctx context.Context, c *caller.Call, _ *systemv1.StartOtherSlot) (*systemv1.SystemReply, error) {
	if err := v.mayRestart(ctx, c.Who); err != nil {
		return nil, err
	}
	j, err := v.receiver.Back(ctx, v.oldest())
	if err != nil {
		return nil, refusal(err)
	}
	v.log.Warn("the Base goes back to the previous version", "audit", true, "id", j.ID, "from", j.From, "to", j.To)
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_Update{Update: message(j)}}, nil
}

// Get answers what is known of updates.
func (v *Verbs) Get(ctx context.Context, _ *caller.Call, _ *systemv1.GetUpdate) (*systemv1.SystemReply, error) {
	status, err := v.status(ctx)
	if err != nil {
		return nil, refusal(err)
	}
	return statusReply(status), nil
}

// RefuseWhileInstalling refuses to stop the machine in the middle of an installation: it may not
// come back.
func (v *Verbs) RefuseWhileInstalling(context.Context) error {
	j, err := v.receiver.Journal()
	if err != nil {
		return refusal(err)
	}
	if j.Phase != "" && !j.Phase.Ended() {
		return helperclient.Errorf(helperclient.CodeBusy, "an update is being installed; wait until it has ended")
	}
	return nil
}

func statusReply(status *systemv1.UpdateStatus) *systemv1.SystemReply {
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_UpdateStatus{UpdateStatus: status}}
}

// phases are the same on the wire and in the journal.
var phases = map[Phase]basev1.Update_Phase{
	Staged: basev1.Update_PHASE_STAGED, Installing: basev1.Update_PHASE_INSTALLING,
	Checking: basev1.Update_PHASE_CHECKING, Undoing: basev1.Update_PHASE_UNDOING,
	Done: basev1.Update_PHASE_DONE, Undone: basev1.Update_PHASE_UNDONE, Failed: basev1.Update_PHASE_FAILED,
}

func message(j Journal) *basev1.Update {
	if j.Phase == "" {
		return nil
	}
	return &basev1.Update{
		Id: j.ID, FromVersion: j.From, ToVersion: j.To, Phase: phases[j.Phase], Step: j.Step, Reason: j.Reason, BeganAt: basev1.Stamp(j.Began),
		EndedAt: basev1.Stamp(j.Ended), AwaitsApp: j.AwaitsApp(),
	}
}

func (v *Verbs) status(ctx context.Context) (*systemv1.UpdateStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, turns.AskTime)
	defer cancel()
	j, err := v.receiver.Journal()
	if err != nil {
		return nil, err
	}
	status := &systemv1.UpdateStatus{Update: message(j), TakesUpdates: v.receiver.TakesUpdates()}
	if status.Installed, err = v.receiver.Installed(ctx); err != nil {
		return nil, err
	}
	if status.Architecture, err = v.receiver.Architecture(ctx); err != nil {
		return nil, err
	}
	slots, err := v.receiver.Slots()
	if err != nil {
		return nil, err
	}
	status.Image, status.Other = v.receiver.IsImage(), slots.Other
	if digest, size, ok := v.receiver.Partial(); ok {
		status.PartialDigest, status.PartialSize = digest[:], size
	}
	status.DebianWaiting, status.DebianUnknown = v.debian()
	return status, nil
}

// Watch sends the journal whenever it has changed, until the update has ended.
func (v *Verbs) Watch(ctx context.Context, c *caller.Call, _ *systemv1.WatchUpdate) (*systemv1.SystemReply, error) {
	var last *basev1.Update
	for {
		j, err := v.receiver.Journal()
		if err != nil {
			return nil, refusal(err)
		}
		if now := message(j); last == nil || !proto.Equal(now, last) {
			if err := c.Send(statusReply(&systemv1.UpdateStatus{Update: now})); err != nil {
				return nil, err
			}
			last = now
		}
		if j.Phase == "" || j.Phase.Ended() {
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(watchEvery):
		}
	}
}
