package system

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/audit"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/turns"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

// watchUpdateEvery is how often the journal of an update is looked at for whoever
// watches: another process writes it.
const watchUpdateEvery = 250 * time.Millisecond

// updateCodes says which code the errors of an update have. What is not here is internal.
var updateCodes = []struct {
	err  error
	code helperclient.Code
}{
	{update.ErrBusy, helperclient.CodeBusy}, {update.ErrNoSpace, helperclient.CodeStorage}, {update.ErrNoUpload, helperclient.CodeNothing},
	{update.ErrNotOnTrial, helperclient.CodeNothing},
	{update.ErrNoKey, helperclient.CodeRefused}, {update.ErrNotForThis, helperclient.CodeRefused},
	{update.ErrOutOfOrder, helperclient.CodeMalformed},
	{release.ErrSignature, helperclient.CodeRefused}, {release.ErrDamaged, helperclient.CodeRefused},
	{release.ErrNotARelease, helperclient.CodeRefused}, {release.ErrFormat, helperclient.CodeRefused},
}

func updateError(err error) error {
	if err == nil {
		return nil
	}
	for _, c := range updateCodes {
		if errors.Is(err, c.err) {
			return helperclient.Errorf(c.code, "%w", err)
		}
	}
	return helperclient.Errorf(helperclient.CodeInternal, "%w", err)
}

var errNoUpdates = helperclient.Errorf(helperclient.CodeRefused, "this Base takes no updates")

func (h *Helper) beginUpdate(ctx context.Context, request *systemv1.BeginUpdate) (*systemv1.SystemReply, error) {
	if h.config.Updates == nil {
		return nil, errNoUpdates
	}
	id, err := h.config.Updates.Begin(ctx, request.GetHeader(), request.GetOffset())
	if err != nil {
		return nil, updateError(err)
	}
	h.log.Info("an update is being received", "audit", true)
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_UpdateBegan{UpdateBegan: &systemv1.UpdateBegan{Upload: id}}}, nil
}

func (h *Helper) updatePiece(request *systemv1.UpdatePiece) (*systemv1.SystemReply, error) {
	if h.config.Updates == nil {
		return nil, errNoUpdates
	}
	return empty(updateError(h.config.Updates.Piece(request.GetUpload(), request.GetOffset(), request.GetData())))
}

func (h *Helper) abortUpdate(request *systemv1.AbortUpdate) (*systemv1.SystemReply, error) {
	if h.config.Updates == nil {
		return nil, errNoUpdates
	}
	h.config.Updates.Abort(request.GetUpload())
	return empty(nil)
}

func (h *Helper) finishUpdate(ctx context.Context, request *systemv1.FinishUpdate) (*systemv1.SystemReply, error) {
	if h.config.Updates == nil {
		return nil, errNoUpdates
	}
	j, err := h.config.Updates.Finish(ctx, request.GetUpload())
	if err != nil {
		return nil, updateError(err)
	}
	h.log.Warn("an update is being installed", "audit", true, "id", j.ID, "from", j.From, "to", j.To)
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_Update{Update: updateOf(j)}}, nil
}

// confirmUpdate takes the Middleware's word: what it can bring about by a lie is that a genuine, newer
// version stays that is well.
func (h *Helper) confirmUpdate(request *systemv1.ConfirmUpdate) (*systemv1.SystemReply, error) {
	if h.config.Updates == nil {
		return nil, errNoUpdates
	}
	return empty(updateError(h.config.Updates.Confirm(request.GetId())))
}

func (h *Helper) startOtherSlot(ctx context.Context) (*systemv1.SystemReply, error) {
	if h.config.Updates == nil {
		return nil, errNoUpdates
	}
	j, err := h.config.Updates.Back(ctx, h.Effective().OldestVersion)
	if err != nil {
		return nil, updateError(err)
	}
	h.log.Warn("the Base goes back to the version before", "audit", true, "id", j.ID, "from", j.From, "to", j.To)
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_Update{Update: updateOf(j)}}, nil
}

func (h *Helper) getUpdate(ctx context.Context) (*systemv1.SystemReply, error) {
	if h.config.Updates == nil {
		return nil, errNoUpdates
	}
	status, err := h.updateStatus(ctx)
	if err != nil {
		return nil, updateError(err)
	}
	return statusReply(status), nil
}

func statusReply(status *systemv1.UpdateStatus) *systemv1.SystemReply {
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_UpdateStatus{UpdateStatus: status}}
}

// phases are the same on the wire and in the journal.
var phases = map[update.Phase]basev1.Update_Phase{
	update.Staged: basev1.Update_PHASE_STAGED, update.Installing: basev1.Update_PHASE_INSTALLING,
	update.Checking: basev1.Update_PHASE_CHECKING, update.Undoing: basev1.Update_PHASE_UNDOING,
	update.Done: basev1.Update_PHASE_DONE, update.Undone: basev1.Update_PHASE_UNDONE, update.Failed: basev1.Update_PHASE_FAILED,
}

func updateOf(j update.Journal) *basev1.Update {
	if j.Phase == "" {
		return nil
	}
	return &basev1.Update{
		Id: j.ID, FromVersion: j.From, ToVersion: j.To, Phase: phases[j.Phase], Step: j.Step, Reason: j.Reason, BeganAt: stamp(j.Began),
		EndedAt: stamp(j.Ended), AwaitsApp: j.AwaitsApp(),
	}
}

func (h *Helper) updateStatus(ctx context.Context) (*systemv1.UpdateStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, turns.AskTime)
	defer cancel()
	j, err := h.config.Updates.Journal()
	if err != nil {
		return nil, err
	}
	status := &systemv1.UpdateStatus{Update: updateOf(j), TakesUpdates: h.config.Updates.TakesUpdates()}
	if status.Installed, err = h.config.Updates.Installed(ctx); err != nil {
		return nil, err
	}
	if status.Architecture, err = h.config.Updates.Architecture(ctx); err != nil {
		return nil, err
	}
	slots, err := h.config.Updates.Slots()
	if err != nil {
		return nil, err
	}
	status.Image, status.Other = h.config.Updates.IsImage(), slots.Other
	if digest, size, ok := h.config.Updates.Partial(); ok {
		status.PartialDigest, status.PartialSize = digest[:], size
	}
	status.DebianWaiting, status.DebianUnknown = h.debianUpdates()
	return status, nil
}

// debianUpdates are Debian's security updates that wait, by the last audit.
func (h *Helper) debianUpdates() (waiting []string, unknown string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.auditedAt == 0 {
		return nil, "the Base has not looked yet since it was started"
	}
	for _, finding := range h.findings {
		switch finding.GetId() {
		case audit.Updates:
			waiting = strings.Split(finding.GetFound(), "\n")
		case audit.UpdatesUnknown, audit.UpdatesUnchecked:
			unknown = finding.GetFound()
		}
	}
	return waiting, unknown
}

// watchUpdate sends the journal whenever it has changed, until the update has ended.
func (h *Helper) watchUpdate(ctx context.Context, send func(*systemv1.SystemReply) error) error {
	if h.config.Updates == nil {
		return errNoUpdates
	}
	var last *basev1.Update
	for {
		j, err := h.config.Updates.Journal()
		if err != nil {
			return updateError(err)
		}
		if now := updateOf(j); last == nil || !proto.Equal(now, last) {
			if err := send(statusReply(&systemv1.UpdateStatus{Update: now})); err != nil {
				return err
			}
			last = now
		}
		if j.Phase == "" || j.Phase.Ended() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(watchUpdateEvery):
		}
	}
}

// health is for the version that installs another one.
func (h *Helper) health(ctx context.Context) (*systemv1.SystemReply, error) {
	ctx, cancel := context.WithTimeout(ctx, turns.AskTime)
	defer cancel()
	health := &systemv1.Health{}
	h.mu.Lock()
	switch c := h.convergence; {
	case c.version != h.version:
		health.Applying = true
	case c.failure != nil:
		health.NotApplied = c.failure.Error()
	}
	health.Middleware = h.events.middlewares > 0
	health.OldestVersion = h.inForceLocked().OldestVersion
	h.mu.Unlock()
	if h.config.Auditor != nil {
		var err error
		if health.Units, err = h.config.Auditor.Units(ctx); err != nil {
			return nil, helperclient.Errorf(helperclient.CodeInternal, "%w", err)
		}
	}
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_Health{Health: health}}, nil
}
