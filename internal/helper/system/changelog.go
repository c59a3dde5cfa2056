package system

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/factoryreset"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// changesFile is the log of changes, in the helper's directory.
const changesFile = "changes.log"

// watchChangesEvery is how often the log is looked after: sums of what found no place, and an
// update that has ended.
const watchChangesEvery = 10 * time.Second

// recorder is the helper's hold of the log of changes. It calls nothing of the helper, so it
// may be called with any lock held.
type recorder struct {
	log   *slog.Logger
	clock func() time.Duration

	mu      sync.Mutex
	file    *changelog.File // nil: it cannot be used
	broken  error           // why
	limiter changelog.Limiter
}

// openRecorder opens the log, or begins it. A log that cannot be used is refused to whoever
// asks for it, and keeps the helper from nothing else.
func openRecorder(config Config, log *slog.Logger, floor *changelog.Floor) *recorder {
	r := &recorder{log: log, clock: config.Clock}
	if config.unrecorded {
		r.broken = errors.New("this Base has no log of changes yet")
		return r
	}
	var cut bool
	r.file, cut, r.broken = changelog.Open(filepath.Join(config.Directory, changesFile), floor)
	if r.broken != nil {
		log.Error("the log of changes cannot be used; what is changed stands in this journal alone", "audit", true, "error", r.broken)
	}
	if r.file != nil {
		r.limiter.Recall(r.file.Newest, time.Now().Unix(), r.clock())
	}
	if cut {
		r.record(changelog.Unlimited, &systemv1.ChangeEntry{Actor: systemv1.ChangeEntry_ACTOR_BASE, What: changelog.CutByPower,
			Detail: "an entry that was being written when the power went or the program was killed"})
	}
	return r
}

// record records a draft, if there is a place for it.
func (r *recorder) record(kind changelog.Kind, e *systemv1.ChangeEntry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.Time = time.Now().Unix()
	if r.limiter.Take(kind, e, r.clock()) {
		r.appendLocked(e)
	}
}

func (r *recorder) appendLocked(e *systemv1.ChangeEntry) {
	err := r.broken
	if err == nil {
		err = r.file.Append(e)
	}
	if err != nil {
		r.log.Error("a change is not in the log of changes", "audit", true, "by", e.GetActor(), "app", e.GetAppId(),
			"what", e.GetWhat(), "detail", e.GetDetail(), "failure", e.GetFailure(), "error", err)
	}
}

// recordSums records what found no place, as far as there are places now, or all of it.
func (r *recorder) recordSums(all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.limiter.Sums(r.clock(), all) {
		e.Time = time.Now().Unix()
		r.appendLocked(e)
	}
}

// floor is what is kept beside the log, so that an older copy of its file is found out; nil
// if there is nothing to keep.
func (r *recorder) floor() *changelog.Floor {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil
	}
	floor := r.file.Floor()
	return &floor
}

// usable returns the file, or why there is none.
func (r *recorder) usable() (*changelog.File, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.file, r.broken
}

func (r *recorder) close() error {
	r.recordSums(true)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// verb is how a verb is recorded.
type verb struct {
	// what is its word, and detail says to what, for people; reply is nil if it was refused.
	what   func(*systemv1.SystemRequest) string
	detail func(request *systemv1.SystemRequest, reply *systemv1.SystemReply) string
	// signed returns the marshalled Signed of an owner, if there is one.
	signed func(*systemv1.SystemRequest) []byte
	// revision: it is a revision of the posture; what that changes is said as well.
	revision bool
	// key returns the signing key of the App that it is done to, if it is done to one.
	key func(*systemv1.SystemRequest) []byte
}

func word(what string) func(*systemv1.SystemRequest) string {
	return func(*systemv1.SystemRequest) string { return what }
}

func nothing(*systemv1.SystemRequest, *systemv1.SystemReply) string { return "" }

// recorded is the table of the verbs that change something. Each verb of system.proto stands
// either here or in unrecorded, by its name there; a test fails otherwise.
var recorded = map[string]verb{
	"submit": {what: word(changelog.Posture), revision: true,
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
		}},
	"confirm_try": {what: word(changelog.PostureConfirm),
		signed: func(r *systemv1.SystemRequest) []byte { return r.GetConfirmTry().GetConfirmation() },
		detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string {
			confirmation := &systemv1.TryConfirmation{}
			if !openSigned(r.GetConfirmTry().GetConfirmation(), confirmation) {
				return ""
			}
			return fmt.Sprintf("revision %d", confirmation.GetRevision())
		}},
	"restrict": {
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
		key: func(r *systemv1.SystemRequest) []byte { return r.GetRestrict().GetAppCutOff().GetSigningKey() }},
	"lift_ban": {what: word(changelog.LiftBan),
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
		}},
	"fix_finding": {what: word(changelog.FixFinding),
		detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string { return r.GetFixFinding().GetId() }},
	"local_change": {what: word(changelog.Posture), revision: true,
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
		}},
	"factory_reset": {what: word(changelog.FactoryReset), detail: nothing,
		signed: func(r *systemv1.SystemRequest) []byte { return r.GetFactoryReset().GetOrder() }},
	"finish_update": {what: word(changelog.Update),
		detail: func(_ *systemv1.SystemRequest, reply *systemv1.SystemReply) string {
			if reply == nil {
				return ""
			}
			return reply.GetUpdate().GetFromVersion() + " to " + reply.GetUpdate().GetToVersion()
		}},
	"change_service": {what: word(changelog.Service),
		detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string {
			action := strings.ToLower(strings.TrimPrefix(r.GetChangeService().GetAction().String(), "SERVICE_ACTION_"))
			return action + " " + r.GetChangeService().GetName()
		}},
	"set_time_zone": {what: word(changelog.TimeZone),
		detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string { return r.GetSetTimeZone().GetName() }},
	"reboot":                 {what: word(changelog.Reboot), detail: nothing},
	"power_off":              {what: word(changelog.PowerOff), detail: nothing},
	"install_debian_updates": {what: word(changelog.DebianUpdates), detail: nothing},
	"order_pairing": {what: word(changelog.OrderPairing),
		signed: func(r *systemv1.SystemRequest) []byte { return r.GetOrderPairing().GetOrder() },
		detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string {
			order := &systemv1.PairingOrder{}
			switch {
			case !openSigned(r.GetOrderPairing().GetOrder(), order):
				return ""
			case order.Number == nil:
				return "a window for an App as " + roleName(order.GetRole())
			}
			return fmt.Sprintf("the request %06d as %s", order.GetNumber(), roleName(order.GetRole()))
		}},
	"answer_pairing": {what: word(changelog.AnswerPairing),
		signed: func(r *systemv1.SystemRequest) []byte { return r.GetAnswerPairing().GetAnswer() },
		detail: func(r *systemv1.SystemRequest, reply *systemv1.SystemReply) string {
			answer, report := &systemv1.PairingAnswer{}, &systemv1.PairingReport{}
			switch {
			case !openSigned(r.GetAnswerPairing().GetAnswer(), answer):
				return ""
			case len(answer.GetWords()) == 0:
				return "no"
			case reply != nil && !(openSigned(reply.GetPairingAnswered().GetReport(), report) && report.GetMatched()):
				return "words that did not match, as " + roleName(answer.GetRole())
			}
			return "yes, as " + roleName(answer.GetRole())
		}},
	"authority": {
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
		key: func(r *systemv1.SystemRequest) []byte { return r.GetAuthority().GetRetire().GetSigningKey() }},
}

// unrecorded are the verbs that change nothing for good, or that record by themselves.
var unrecorded = map[string]bool{
	"get_posture": true, "list_bans": true, "run_audit": true, "get_machine": true,
	"watch_system": true, "announce": true, "get_summary": true, "begin_update": true, "update_piece": true, "abort_update": true,
	"get_update": true, "watch_update": true, "get_health": true, "list_services": true, "read_logs": true, "list_time_zones": true,
	"list_changes": true, "record_change": true,
}

func roleName(role fmt.Stringer) string {
	return strings.ToLower(strings.TrimPrefix(role.String(), "ROLE_"))
}

// openSigned reads what stands in an envelope. Nobody has verified it.
func openSigned(signed []byte, m proto.Message) bool {
	envelope := &systemv1.Signed{}
	return len(signed) <= posture.MaxDocumentSize && proto.Unmarshal(signed, envelope) == nil && proto.Unmarshal(envelope.GetMessage(), m) == nil
}

// verbName is the name of the verb in system.proto.
func verbName(request *systemv1.SystemRequest) string {
	m := request.ProtoReflect()
	field := m.WhichOneof(m.Descriptor().Oneofs().ByName("verb"))
	if field == nil {
		return ""
	}
	return string(field.Name())
}

// recording records a verb, once it has ended. It is made before the verb is done, so that an
// App that is taken away by it still has its name.
type recording struct {
	h       *Helper
	who     Who
	request *systemv1.SystemRequest
	verb    verb
	what    string
	apps    []posture.App
}

// recording returns nil for what changes nothing.
func (h *Helper) recording(who Who, request *systemv1.SystemRequest) *recording {
	v, changes := recorded[verbName(request)]
	if !changes {
		return nil
	}
	what := v.what(request)
	if what == "" {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return &recording{h, who, request, v, what, h.ledger.Effective().Apps}
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
	if err != nil {
		reply = nil
	}
	e := &systemv1.ChangeEntry{What: r.what, Detail: r.verb.detail(r.request, reply)}
	if r.verb.key != nil {
		if key := r.verb.key(r.request); len(key) == len(posture.SigningKey{}) {
			e.Detail = fmt.Sprintf("the key %x", key)
			if i := slices.IndexFunc(r.apps, func(a posture.App) bool { return a.SigningKey == posture.SigningKey(key) }); i >= 0 {
				e.Detail = r.apps[i].Name + ", " + e.Detail
			}
		}
	}
	if r.verb.revision && accepted(err) {
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
		if r.who == WhoMiddleware {
			kind = changelog.Refused
		}
	}
	if err != nil {
		e.Failure = err.Error()
	}
	r.h.changes.record(kind, e)
}

// errUnderWay: what was asked for was accepted and is being done, but whoever asked has hung
// up before its end. If it is undone, the Base records that by itself.
var errUnderWay = errors.New("it was accepted, and whoever asked hung up before it was in force")

// accepted tells whether what was asked for was begun, however it ended.
func accepted(err error) bool {
	return err == nil || errors.Is(err, &helperclient.Error{Code: helperclient.CodeNotApplied}) || errors.Is(err, errUnderWay)
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
	if r.verb.signed == nil || !accepted(err) {
		return posture.SigningKey{}, false
	}
	envelope := &systemv1.Signed{}
	if signed := r.verb.signed(r.request); len(signed) == 0 || proto.Unmarshal(signed, envelope) != nil || len(envelope.GetSigner()) != len(posture.SigningKey{}) {
		return posture.SigningKey{}, false // root needs none
	}
	return posture.SigningKey(envelope.GetSigner()), true
}

// actor says who asked, as far as the kernel and the Middleware say so.
func (h *Helper) actor(who Who, appID string, apps []posture.App, e *systemv1.ChangeEntry) changelog.Kind {
	switch who {
	case WhoConsole:
		e.Actor = systemv1.ChangeEntry_ACTOR_CONSOLE
		return changelog.Unlimited
	case WhoRoot:
		e.Actor = systemv1.ChangeEntry_ACTOR_ROOT
		return changelog.Unlimited
	}
	e.Actor, e.AppId = systemv1.ChangeEntry_ACTOR_APP, appID
	if i := slices.IndexFunc(apps, func(a posture.App) bool { return a.ID == appID }); i >= 0 {
		e.AppName = apps[i].Name
	}
	return changelog.Unsigned
}

// acts says with which word the log has what the Base did to its posture by itself.
var acts = map[posture.ActKind]string{
	posture.ActLeaseEnded: changelog.LeaseEnded, posture.ActUndone: changelog.PostureUndone, posture.ActEnrolled: changelog.AppEnrolled,
	posture.ActRetired: changelog.AppRetired, posture.ActGranted: changelog.Posture,
}

// recordActsLocked records what the ledger has done by itself, once that is on the disk.
func (h *Helper) recordActsLocked() {
	for _, act := range h.ledger.TakeActs() {
		h.changes.record(changelog.Unlimited, &systemv1.ChangeEntry{
			Actor: systemv1.ChangeEntry_ACTOR_BASE, What: acts[act.Kind], Detail: act.Detail})
	}
}

// recordBegin writes the first entry of a new log: what the Base was then.
func (h *Helper) recordBegin() {
	file, err := h.changes.usable()
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
		detail += fmt.Sprintf("; as new since the factory reset ordered by %s at %s", reset.By, reset.OrderedAt.UTC().Format(time.DateTime+" UTC"))
	}
	h.changes.record(changelog.Unlimited, &systemv1.ChangeEntry{Actor: systemv1.ChangeEntry_ACTOR_BASE, What: changelog.Begun, Detail: detail})
}

// watchChanges looks after the log until ctx ends.
func (h *Helper) watchChanges(ctx context.Context) {
	h.recordUpdateEnd()
	every(ctx, watchChangesEvery, func() {
		h.changes.recordSums(false)
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
	file, broken := h.changes.usable()
	if err != nil || broken != nil || j.Phase == "" || !j.Phase.Ended() {
		return
	}
	named, known := "update "+j.ID, false
	file.Newest(func(e *systemv1.ChangeEntry) bool {
		known = e.GetWhat() == changelog.UpdateEnded && strings.HasSuffix(e.GetDetail(), named)
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
	h.changes.record(changelog.Unlimited, e)
}

// changeVerbs answers what concerns the log itself.
func (h *Helper) changeVerbs(who Who, request *systemv1.SystemRequest) (*systemv1.SystemReply, error) {
	switch v := request.GetVerb().(type) {
	case *systemv1.SystemRequest_ListChanges:
		return h.listChanges(v.ListChanges)
	case *systemv1.SystemRequest_RecordChange:
		return h.recordChange(who, request.GetAppId(), v.RecordChange)
	}
	return nil, helperclient.Errorf(helperclient.CodeInternal, "%T is no verb about the log of changes", request.GetVerb())
}

// changesNonce is how many random bytes an App asks with.
const changesNonce = 32

func (h *Helper) listChanges(request *systemv1.ListChanges) (*systemv1.SystemReply, error) {
	if len(request.GetNonce()) != changesNonce {
		return nil, helperclient.Errorf(helperclient.CodeMalformed, "the nonce has %d bytes, not %d", len(request.GetNonce()), changesNonce)
	}
	file, err := h.changes.usable()
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
func (h *Helper) recordChange(who Who, appID string, request *systemv1.RecordChange) (*systemv1.SystemReply, error) {
	if !changelog.Words[request.GetWhat()].Middleware {
		return nil, helperclient.Errorf(helperclient.CodePermission, "the Middleware may not record %q", changelog.Line(request.GetWhat(), changelog.MaxName))
	}
	e := &systemv1.ChangeEntry{What: request.GetWhat(), Detail: request.GetDetail(), Failure: request.GetFailure()}
	h.mu.Lock()
	apps := h.ledger.Effective().Apps
	h.mu.Unlock()
	kind := h.actor(who, appID, apps, e)
	if e.GetFailure() != "" {
		kind = changelog.Refused
	}
	h.changes.record(kind, e)
	return &systemv1.SystemReply{}, nil
}
