package changerecorder

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

// watchEvery is how often the log is looked after: sums of what found no place, and an
// update that has ended.
const watchEvery = 10 * time.Second

// acts says with which word the log has what the Base did to its posture by itself.
var acts = map[posture.ActKind]string{
	posture.ActLeaseEnded: changelog.LeaseEnded, posture.ActUndone: changelog.PostureUndone, posture.ActEnrolled: changelog.AppEnrolled,
	posture.ActRetired: changelog.AppRetired, posture.ActGranted: changelog.Posture,
}

// Acts records what the ledger has done by itself, once that is on the disk.
func (r *Recorder) Acts(list []posture.Act) {
	for _, act := range list {
		r.Record(changelog.Unlimited, &systemv1.ChangeEntry{
			Actor: systemv1.ChangeEntry_ACTOR_BASE, What: acts[act.Kind], Detail: act.Detail})
	}
}

// Begin writes the first entry of a new log: what the Base is. directory is the helper's.
func (r *Recorder) Begin(e posture.Effective, directory string) {
	file, err := r.Usable()
	if err != nil || file.Floor().Number != 0 {
		return
	}
	var names []string
	for _, app := range e.Apps {
		names = append(names, app.Name)
	}
	detail := fmt.Sprintf("revision %d, Apps: %d", e.Revision, len(names))
	if len(names) > 0 {
		detail += " (" + strings.Join(names, ", ") + ")"
	}
	if reset, ok := factoryreset.Last(directory); ok {
		detail += fmt.Sprintf("; as new since the factory reset ordered by %s at %s", reset.By,
			reset.OrderedAt.UTC().Format(time.DateTime+" UTC"))
	}
	r.Record(changelog.Unlimited, &systemv1.ChangeEntry{Actor: systemv1.ChangeEntry_ACTOR_BASE, What: changelog.Begun, Detail: detail})
}

// Log is the log of changes, as the helper's verbs are recorded in it and ask for it.
type Log struct {
	*Recorder
	ledger  Ledger
	updates Updates
	// sign signs a head of the log as the Base.
	sign func(head *systemv1.ChangesHead) ([]byte, error)
	// counted is the update whose end was recorded, or found no place; Run alone uses it.
	counted string
}

// Updates tells of the last update.
type Updates interface {
	Journal() (update.Journal, error)
}

// NewLog returns the Log that a Recorder writes.
func NewLog(r *Recorder, ledger Ledger, updates Updates, sign func(*systemv1.ChangesHead) ([]byte, error)) *Log {
	return &Log{Recorder: r, ledger: ledger, updates: updates, sign: sign}
}

// Run looks after the log until ctx ends.
func (l *Log) Run(ctx context.Context) {
	l.recordUpdateEnd()
	turns.Every(ctx, watchEvery, func() {
		l.RecordSums(false)
		l.recordUpdateEnd()
	})
}

// recordUpdateEnd records how the last update ended, once: the log itself says whether it is
// there. Another process installs updates, and this one may have been ended by it.
func (l *Log) recordUpdateEnd() {
	j, err := l.updates.Journal()
	file, broken := l.Usable()
	if err != nil || broken != nil || j.Phase == "" || !j.Phase.Ended() {
		return
	}
	named := "update " + j.ID
	known := l.counted == named
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
		e.Failure = "the previous version is installed: " + j.Reason
		if j.Phase == update.Failed {
			e.Failure = "somebody has to look at the Base: " + j.Reason
		}
	}
	// A Middleware can bring a release that fails again and again.
	l.Record(changelog.Unsigned, e)
	l.counted = named
}

// nonceSize is how many random bytes an App asks with.
const nonceSize = 32

// ListChanges answers with a stretch of the log, and a signed head.
func (l *Log) ListChanges(_ context.Context, _ *caller.Call, request *systemv1.ListChanges) (*systemv1.SystemReply, error) {
	if len(request.GetNonce()) != nonceSize {
		return nil, helperclient.Errorf(helperclient.CodeMalformed, "the nonce has %d bytes, not %d", len(request.GetNonce()), nonceSize)
	}
	file, err := l.Usable()
	if err != nil {
		return nil, helperclient.Errorf(helperclient.CodeInternal, "%w", err)
	}
	entries, head := file.Stretch(request.GetAfter(), request.GetMost())
	head.Nonce = request.GetNonce()
	signed, err := l.sign(head)
	if err != nil {
		return nil, helperclient.Errorf(helperclient.CodeInternal, "%w", err)
	}
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_Changes{Changes: &systemv1.ChangesResult{Entries: entries, Head: signed}}}, nil
}

// RecordChange takes the Middleware's word for a change of its own.
func (l *Log) RecordChange(_ context.Context, c *caller.Call, request *systemv1.RecordChange) (*systemv1.SystemReply, error) {
	if !changelog.Words[request.GetWhat()].Middleware {
		return nil, helperclient.Errorf(helperclient.CodePermission, "the Middleware may not record %q",
			changelog.Line(request.GetWhat(), changelog.MaxName))
	}
	e := &systemv1.ChangeEntry{What: request.GetWhat(), Detail: request.GetDetail(), Failure: request.GetFailure()}
	kind := actor(c.Who, c.App, l.apps(), e)
	if e.GetFailure() != "" {
		kind = changelog.Refused
	}
	l.Record(kind, e)
	return &systemv1.SystemReply{}, nil
}
