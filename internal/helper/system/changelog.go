package system

import (
	"context"
	"fmt"
	"strings"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/factoryreset"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/turns"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// watchChangesEvery is how often the log is looked after: sums of what found no place, and an
// update that has ended.
const watchChangesEvery = 10 * time.Second

// acts says with which word the log has what the Base did to its posture by itself.
var acts = map[posture.ActKind]string{
	posture.ActLeaseEnded: changelog.LeaseEnded, posture.ActUndone: changelog.PostureUndone, posture.ActEnrolled: changelog.AppEnrolled,
	posture.ActRetired: changelog.AppRetired, posture.ActGranted: changelog.Posture,
}

// recordActsLocked records what the ledger has done by itself, once that is on the disk.
func (h *Helper) recordActsLocked() {
	for _, act := range h.ledger.TakeActs() {
		h.changes.Record(changelog.Unlimited, &systemv1.ChangeEntry{
			Actor: systemv1.ChangeEntry_ACTOR_BASE, What: acts[act.Kind], Detail: act.Detail})
	}
}

// recordBegin writes the first entry of a new log: what the Base was then.
func (h *Helper) recordBegin() {
	file, err := h.changes.Usable()
	if err != nil || file.Floor().Number != 0 {
		return
	}
	h.mu.Lock()
	e := h.ledger.Effective()
	h.mu.Unlock()
	var names []string
	for _, app := range e.Apps {
		names = append(names, app.Name)
	}
	detail := fmt.Sprintf("revision %d, Apps: %d", e.Revision, len(names))
	if len(names) > 0 {
		detail += " (" + strings.Join(names, ", ") + ")"
	}
	if reset, ok := factoryreset.Last(h.config.Directory); ok {
		detail += fmt.Sprintf("; as new since the factory reset ordered by %s at %s", reset.By,
			reset.OrderedAt.UTC().Format(time.DateTime+" UTC"))
	}
	h.changes.Record(changelog.Unlimited, &systemv1.ChangeEntry{Actor: systemv1.ChangeEntry_ACTOR_BASE, What: changelog.Begun, Detail: detail})
}

// watchChanges looks after the log until ctx ends.
func (h *Helper) watchChanges(ctx context.Context) {
	h.recordUpdateEnd()
	turns.Every(ctx, watchChangesEvery, func() {
		h.changes.RecordSums(false)
		h.recordUpdateEnd()
	})
}

// recordUpdateEnd records how the last update ended, once: the log itself says whether it is
// there. Another process installs updates, and this one may have been ended by it.
func (h *Helper) recordUpdateEnd() {
	if h.config.Updates == nil {
		return
	}
	j, err := h.config.Updates.Journal()
	file, broken := h.changes.Usable()
	if err != nil || broken != nil || j.Phase == "" || !j.Phase.Ended() {
		return
	}
	named := "update " + j.ID
	known := h.counted == named
	file.Newest(func(e *systemv1.ChangeEntry) bool {
		known = known || e.GetWhat() == changelog.UpdateEnded && strings.HasSuffix(e.GetDetail(), named)
		return !known && e.GetWhat() != changelog.UpdateEnded
	})
	if known {
		return
	}
	e := &systemv1.ChangeEntry{Actor: systemv1.ChangeEntry_ACTOR_BASE, What: changelog.UpdateEnded,
		Detail: fmt.Sprintf("%s to %s, %s", j.From, j.To, named)}
	if j.Phase != update.Done {
		e.Failure = "the version before is installed: " + j.Reason
		if j.Phase == update.Failed {
			e.Failure = "somebody has to look at the Base: " + j.Reason
		}
	}
	// A Middleware can bring a release that fails again and again.
	h.changes.Record(changelog.Unsigned, e)
	h.counted = named
}

// changesNonce is how many random bytes an App asks with.
const changesNonce = 32

func (h *Helper) listChanges(request *systemv1.ListChanges) (*systemv1.SystemReply, error) {
	if len(request.GetNonce()) != changesNonce {
		return nil, helperclient.Errorf(helperclient.CodeMalformed, "the nonce has %d bytes, not %d", len(request.GetNonce()), changesNonce)
	}
	file, err := h.changes.Usable()
	if err != nil {
		return nil, helperclient.Errorf(helperclient.CodeInternal, "%w", err)
	}
	entries, head := file.Stretch(request.GetAfter(), request.GetMost())
	base := posture.PublicKey(h.store.seed)
	h.mu.Lock()
	epoch := h.ledger.Epoch()
	h.mu.Unlock()
	head.BaseId, head.Epoch, head.Nonce = base[:], epoch[:], request.GetNonce()
	signed, err := changelog.Sign(head, h.store.seed)
	if err != nil {
		return nil, helperclient.Errorf(helperclient.CodeInternal, "%w", err)
	}
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_Changes{Changes: &systemv1.ChangesResult{Entries: entries, Head: signed}}}, nil
}

// recordChange takes the Middleware's word for a change of its own.
func (h *Helper) recordChange(who caller.Who, appID string, request *systemv1.RecordChange) (*systemv1.SystemReply, error) {
	if !changelog.Words[request.GetWhat()].Middleware {
		return nil, helperclient.Errorf(helperclient.CodePermission, "the Middleware may not record %q",
			changelog.Line(request.GetWhat(), changelog.MaxName))
	}
	e := &systemv1.ChangeEntry{What: request.GetWhat(), Detail: request.GetDetail(), Failure: request.GetFailure()}
	h.mu.Lock()
	apps := h.ledger.Effective().Apps
	h.mu.Unlock()
	kind := h.actor(who, appID, apps, e)
	if e.GetFailure() != "" {
		kind = changelog.Refused
	}
	h.changes.Record(kind, e)
	return &systemv1.SystemReply{}, nil
}
