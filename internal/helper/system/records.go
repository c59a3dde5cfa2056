package system

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
)

// recorded is how the log of changes has a verb (verbs.go).
type recorded struct {
	// word is its word there. what is set in its place if that depends on the request;
	// an empty word: this request is not recorded.
	word string
	what func(*systemv1.SystemRequest) string
	// detail says to what, for people; reply is nil if it was refused. nil: nothing.
	detail func(request *systemv1.SystemRequest, reply *systemv1.SystemReply) string
	// signed returns the marshalled Signed of an owner, if there is one.
	signed func(*systemv1.SystemRequest) []byte
	// revision: it is a revision of the posture; what that changes is said as well.
	revision bool
	// key returns the signing key of the App that it is done to, if it is done to one.
	key func(*systemv1.SystemRequest) []byte
}

var recordSubmit = recorded{word: changelog.Posture, revision: true,
	signed: func(r *systemv1.SystemRequest) []byte { return r.GetSubmit().GetDocument() },
	detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string {
		document := &systemv1.PostureDocument{}
		if !openSigned(r.GetSubmit().GetDocument(), document) {
			return ""
		}
		if document.GetTry() {
			return fmt.Sprintf("revision %d, on trial", document.GetRevision())
		}
		return fmt.Sprintf("revision %d", document.GetRevision())
	}}

var recordConfirm = recorded{word: changelog.PostureConfirm,
	signed: func(r *systemv1.SystemRequest) []byte { return r.GetConfirmTry().GetConfirmation() },
	detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string {
		confirmation := &systemv1.TryConfirmation{}
		if !openSigned(r.GetConfirmTry().GetConfirmation(), confirmation) {
			return ""
		}
		return fmt.Sprintf("revision %d", confirmation.GetRevision())
	}}

var recordRestrict = recorded{
	what: func(r *systemv1.SystemRequest) string {
		switch r.GetRestrict().GetWhat().(type) {
		case *systemv1.Restrict_PairingShut:
			return changelog.ClosePairing
		case *systemv1.Restrict_EndLease:
			return changelog.EndLease
		case *systemv1.Restrict_AppCutOff:
			return changelog.CutOff
		default:
			return changelog.Lockdown
		}
	},
	detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string {
		return r.GetRestrict().GetEndLease().GetKind()
	},
	key: func(r *systemv1.SystemRequest) []byte { return r.GetRestrict().GetAppCutOff().GetSigningKey() }}

var recordLiftBan = recorded{word: changelog.LiftBan,
	signed: func(r *systemv1.SystemRequest) []byte { return r.GetLiftBan().GetOrder() },
	detail: func(r *systemv1.SystemRequest, reply *systemv1.SystemReply) string {
		order := &systemv1.LiftBanOrder{}
		if plain := r.GetLiftBan().GetPlain(); plain != nil {
			order = plain
		} else if !openSigned(r.GetLiftBan().GetOrder(), order) {
			return ""
		}
		if reply != nil && !reply.GetLiftBan().GetLifted() {
			return order.GetAddress() + ", which was not banned"
		}
		return order.GetAddress()
	}}

var recordLocal = recorded{word: changelog.Posture, revision: true,
	detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string {
		detail := "locally"
		switch change := r.GetLocalChange().GetChange().(type) {
		case *systemv1.LocalChange_LiftRestrictions:
			detail = "restrictions lifted"
		case *systemv1.LocalChange_GoBack:
			detail = fmt.Sprintf("back to revision %d", change.GoBack.GetRevision())
		}
		if note := r.GetLocalChange().GetNote(); note != "" {
			detail += ": " + note
		}
		return detail
	}}

var recordOrderPairing = recorded{word: changelog.OrderPairing,
	signed: func(r *systemv1.SystemRequest) []byte { return r.GetOrderPairing().GetOrder() },
	detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string {
		order := &systemv1.PairingOrder{}
		switch {
		case !openSigned(r.GetOrderPairing().GetOrder(), order):
			return ""
		case order.Number == nil:
			return "a window for an App as " + order.GetRole().Name()
		}
		return fmt.Sprintf("the request %06d as %s", order.GetNumber(), order.GetRole().Name())
	}}

var recordAnswerPairing = recorded{word: changelog.AnswerPairing,
	signed: func(r *systemv1.SystemRequest) []byte { return r.GetAnswerPairing().GetAnswer() },
	detail: func(r *systemv1.SystemRequest, reply *systemv1.SystemReply) string {
		answer, report := &systemv1.PairingAnswer{}, &systemv1.PairingReport{}
		switch {
		case !openSigned(r.GetAnswerPairing().GetAnswer(), answer):
			return ""
		case len(answer.GetWords()) == 0:
			return "no"
		case reply != nil && !(openSigned(reply.GetPairingAnswered().GetReport(), report) && report.GetMatched()):
			return "words that did not match, as " + answer.GetRole().Name()
		}
		return "yes, as " + answer.GetRole().Name()
	}}

var recordAuthority = recorded{
	what: func(r *systemv1.SystemRequest) string {
		switch verb := r.GetAuthority().GetVerb().(type) {
		case *systemv1.AuthorityRequest_OpenWindow:
			return changelog.OpenWindow
		case *systemv1.AuthorityRequest_CloseWindow:
			if verb.CloseWindow.GetUnsignedOnly() {
				return "" // a consequence of a revocation, which is recorded
			}
			return changelog.CloseWindow
		case *systemv1.AuthorityRequest_Accept:
			return changelog.AcceptPairing
		case *systemv1.AuthorityRequest_Answer:
			return changelog.AnswerPairing
		case *systemv1.AuthorityRequest_Retire:
			return changelog.RetireKey
		}
		return "" // the steps of a ceremony; what comes of it is recorded
	},
	detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string {
		switch v := r.GetAuthority().GetVerb().(type) {
		case *systemv1.AuthorityRequest_Accept:
			return fmt.Sprintf("the request %06d", v.Accept.GetNumber())
		case *systemv1.AuthorityRequest_Answer:
			if v.Answer.GetYes() {
				return "yes"
			}
			return "no"
		}
		return ""
	},
	key: func(r *systemv1.SystemRequest) []byte { return r.GetAuthority().GetRetire().GetSigningKey() }}

func detailFinishUpdate(_ *systemv1.SystemRequest, reply *systemv1.SystemReply) string {
	if reply == nil {
		return ""
	}
	return reply.GetUpdate().GetFromVersion() + " to " + reply.GetUpdate().GetToVersion()
}

func detailService(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string {
	action := strings.ToLower(strings.TrimPrefix(r.GetChangeService().GetAction().String(), "SERVICE_ACTION_"))
	return action + " " + r.GetChangeService().GetName()
}

// openSigned reads what stands in an envelope. Nobody has verified it.
func openSigned(signed []byte, m proto.Message) bool {
	envelope := &systemv1.Signed{}
	return len(signed) <= posture.MaxDocumentSize && proto.Unmarshal(signed, envelope) == nil &&
		proto.Unmarshal(envelope.GetMessage(), m) == nil
}

// recording records a verb, once it has ended. It is made before the verb is done, so that an
// App that is taken away by it still has its name.
type recording struct {
	h       *Helper
	who     caller.Who
	request *systemv1.SystemRequest
	record  *recorded
	what    string
	apps    []posture.App
}

// recording returns nil for what changes nothing.
func (h *Helper) recording(v verb, who caller.Who, request *systemv1.SystemRequest) *recording {
	if v.record == nil {
		return nil
	}
	what := v.record.word
	if v.record.what != nil {
		what = v.record.what(request)
	}
	if what == "" {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return &recording{h, who, request, v.record, what, h.ledger.Effective().Apps}
}

// end records how it ended, before whoever asked is told.
func (r *recording) end(reply *systemv1.SystemReply, err error) {
	if r == nil {
		return
	}
	if err == nil && reply.GetAuthority().GetErrorCode() != "" {
		err = errors.New(reply.GetAuthority().GetErrorMessage())
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
	if r.record.detail != nil {
		e.Detail = r.record.detail(r.request, reply)
	}
	if r.record.key != nil {
		if key := r.record.key(r.request); len(key) == len(posture.SigningKey{}) {
			e.Detail = fmt.Sprintf("the key %x", key)
			if i := slices.IndexFunc(r.apps, func(a posture.App) bool { return a.SigningKey == posture.SigningKey(key) }); i >= 0 {
				e.Detail = r.apps[i].Name + ", " + e.Detail
			}
		}
	}
	if r.record.revision && refusal.Accepted(err) {
		e.Detail += r.changed(err)
	}
	kind := r.h.actor(r.who, r.request.GetAppId(), r.apps, e)
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
		e.Detail = "whoever asked for it did not wait for its end"
	case err != nil:
		e.Failure = refusal.Of(err).Message
	}
	r.h.changes.Record(kind, e)
}

// changed says in words what the revision that was asked for changes.
func (r *recording) changed(err error) string {
	r.h.mu.Lock()
	defer r.h.mu.Unlock()
	document := &systemv1.PostureDocument{}
	_, revision := r.h.ledger.Posture()
	switch submit := r.request.GetSubmit(); {
	case submit != nil && openSigned(submit.GetDocument(), document):
		revision = document.GetRevision()
	case err != nil:
		return "" // a local one has no number yet when it is asked for, and is not the last any more
	}
	var texts []string
	for _, change := range r.h.ledger.Changed(revision) {
		texts = append(texts, change.Text)
	}
	if len(texts) == 0 {
		return ""
	}
	return ": " + strings.Join(texts, " ")
}

// signer is whose signature was accepted. That of what was refused proves nothing: it may
// have been refused for it.
func (r *recording) signer(err error) (posture.SigningKey, bool) {
	if r.record.signed == nil || !refusal.Accepted(err) {
		return posture.SigningKey{}, false
	}
	envelope := &systemv1.Signed{}
	if signed := r.record.signed(r.request); len(signed) == 0 || proto.Unmarshal(signed, envelope) != nil ||
		len(envelope.GetSigner()) != len(posture.SigningKey{}) {
		return posture.SigningKey{}, false // root needs none
	}
	return posture.SigningKey(envelope.GetSigner()), true
}

// actor says who asked, as far as the kernel and the Middleware say so.
func (h *Helper) actor(who caller.Who, appID string, apps []posture.App, e *systemv1.ChangeEntry) changelog.Kind {
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
