package changerecorder

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/refusal"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Verb is how the log of changes has a verb of the helper.
type Verb struct {
	// Word is its word there. If that depends on the request, [Verb.What] is set in its place;
	// an empty word: this request is not recorded.
	Word string
	What func(*systemv1.SystemRequest) string
	// Detail says to what, for people; reply is nil if it was refused. nil: nothing.
	Detail func(request *systemv1.SystemRequest, reply *systemv1.SystemReply) string
	// Signed returns the marshalled Signed of an owner, if there is one.
	Signed func(*systemv1.SystemRequest) []byte
	// Revision: it is a revision of the posture; what that changes is said as well.
	Revision bool
	// Key returns the signing key of the App that it is done to, if it is done to one.
	Key func(*systemv1.SystemRequest) []byte
}

// Ledger is what the log asks of the posture.
type Ledger interface {
	// Look gives the ledger to look.
	Look(look func(l *posture.Ledger))
}

// OpenSigned reads what stands in an envelope. Nobody has verified it.
func OpenSigned(signed []byte, m proto.Message) bool {
	envelope := &systemv1.Signed{}
	return len(signed) <= posture.MaxDocumentSize && proto.Unmarshal(signed, envelope) == nil &&
		proto.Unmarshal(envelope.GetMessage(), m) == nil
}

// Recording records a verb, once it has ended. It is made before the verb is done, so that an
// App that is taken away by it still has its name.
type Recording struct {
	log     *Log
	who     caller.Who
	request *systemv1.SystemRequest
	verb    *Verb
	what    string
	apps    []posture.App
}

// Begin returns the Recording of a verb; nil, which records nothing, if it changes nothing.
func (l *Log) Begin(v *Verb, who caller.Who, request *systemv1.SystemRequest) *Recording {
	if v == nil {
		return nil
	}
	what := v.Word
	if v.What != nil {
		what = v.What(request)
	}
	if what == "" {
		return nil
	}
	return &Recording{l, who, request, v, what, l.apps()}
}

func (l *Log) apps() (apps []posture.App) {
	l.ledger.Look(func(ledger *posture.Ledger) { apps = ledger.Effective().Apps })
	return apps
}

// End records how it ended, before the caller is told.
func (r *Recording) End(reply *systemv1.SystemReply, err error) {
	if r == nil {
		return
	}
	if err == nil && reply.GetAuthority().GetErrorCode() != "" {
		err = reason.New(reply.GetAuthority().GetErrorMessage())
	}
	if errors.Is(err, &helperclient.Error{Code: helperclient.CodeReset}) {
		return // the log is about to go
	}
	notAwaited := errors.Is(err, refusal.ErrNotAwaited)
	if notAwaited {
		err = nil // it goes on
	}
	if err != nil {
		reply = nil
	}
	e := &systemv1.ChangeEntry{What: r.what}
	if r.verb.Detail != nil {
		e.Detail = r.verb.Detail(r.request, reply)
	}
	if r.verb.Key != nil {
		if key := r.verb.Key(r.request); len(key) == len(posture.SigningKey{}) {
			e.Detail = fmt.Sprintf("the key %x", key)
			if i := slices.IndexFunc(r.apps, func(a posture.App) bool { return a.SigningKey == posture.SigningKey(key) }); i >= 0 {
				e.Detail = r.apps[i].Name + ", " + e.Detail
			}
		}
	}
	if r.verb.Revision && refusal.Accepted(err) {
		e.Detail += r.changed(err)
	}
	kind := actor(r.who, r.request.GetAppId(), r.apps, e)
	if signer, ok := r.signer(err); ok {
		e.Actor, e.SigningKey, e.AppId, e.AppName = systemv1.ChangeEntry_ACTOR_OWNER, signer[:], "", ""
		if i := slices.IndexFunc(r.apps, func(a posture.App) bool { return a.SigningKey == signer }); i >= 0 {
			e.AppId, e.AppName = r.apps[i].ID, r.apps[i].Name
		}
		kind = changelog.Unlimited
	} else if err != nil {
		kind = changelog.RefusedLocal
		if r.who == caller.Middleware {
			kind = changelog.Refused
		}
	}
	switch {
	case notAwaited:
		e.Detail = "the caller did not wait for its end"
	case err != nil:
		e.Failure = refusal.Of(err).Message
	}
	r.log.Record(kind, e)
}

// changed says in words what the revision that was asked for changes.
func (r *Recording) changed(err error) string {
	document := &systemv1.PostureDocument{}
	revision := uint64(0) // the last one
	switch submit := r.request.GetSubmit(); {
	case submit != nil && OpenSigned(submit.GetDocument(), document):
		revision = document.GetRevision()
	case err != nil:
		return "" // a local one has no number yet when it is requested, and is no longer the last
	}
	var texts []string
	r.log.ledger.Look(func(ledger *posture.Ledger) {
		if revision == 0 {
			_, revision = ledger.Posture()
		}
		for _, change := range ledger.Changed(revision) {
			texts = append(texts, change.Text)
		}
	})
	if len(texts) == 0 {
		return ""
	}
	return ": " + strings.Join(texts, " ")
}

// signer is the owner whose signature was accepted. A refused signature proves nothing: it may
// have been refused for it.
func (r *Recording) signer(err error) (posture.SigningKey, bool) {
	if r.verb.Signed == nil || !refusal.Accepted(err) {
		return posture.SigningKey{}, false
	}
	envelope := &systemv1.Signed{}
	if signed := r.verb.Signed(r.request); len(signed) == 0 || proto.Unmarshal(signed, envelope) != nil ||
		len(envelope.GetSigner()) != len(posture.SigningKey{}) {
		return posture.SigningKey{}, false // root needs none
	}
	return posture.SigningKey(envelope.GetSigner()), true
}

// actor says who asked, as far as the kernel and the Middleware say so.
func actor(who caller.Who, appID string, apps []posture.App, e *systemv1.ChangeEntry) changelog.Kind {
	switch who {
	case caller.Console:
		e.Actor = systemv1.ChangeEntry_ACTOR_CONSOLE
		return changelog.Unlimited
	case caller.Root:
		e.Actor = systemv1.ChangeEntry_ACTOR_ROOT
		return changelog.Unlimited
	}
	e.Actor, e.AppId = systemv1.ChangeEntry_ACTOR_APP, appID
	if i := slices.IndexFunc(apps, func(a posture.App) bool { return a.ID == appID }); i >= 0 {
		e.AppName = apps[i].Name
	}
	return changelog.Unsigned
}
