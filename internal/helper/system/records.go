package system

import (
	"fmt"
	"strings"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/changerecorder"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
)

var recordSubmit = &changerecorder.Verb{Word: changelog.Posture, Revision: true,
	Signed: func(r *systemv1.SystemRequest) []byte { return r.GetSubmit().GetDocument() },
	Detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string {
		document := &systemv1.PostureDocument{}
		if !changerecorder.OpenSigned(r.GetSubmit().GetDocument(), document) {
			return ""
		}
		if document.GetTry() {
			return fmt.Sprintf("revision %d, on trial", document.GetRevision())
		}
		return fmt.Sprintf("revision %d", document.GetRevision())
	}}

var recordConfirm = &changerecorder.Verb{Word: changelog.PostureConfirm,
	Signed: func(r *systemv1.SystemRequest) []byte { return r.GetConfirmTry().GetConfirmation() },
	Detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string {
		confirmation := &systemv1.TryConfirmation{}
		if !changerecorder.OpenSigned(r.GetConfirmTry().GetConfirmation(), confirmation) {
			return ""
		}
		return fmt.Sprintf("revision %d", confirmation.GetRevision())
	}}

var recordRestrict = &changerecorder.Verb{
	What: func(r *systemv1.SystemRequest) string {
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
	Detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string {
		return r.GetRestrict().GetEndLease().GetKind()
	},
	Key: func(r *systemv1.SystemRequest) []byte { return r.GetRestrict().GetAppCutOff().GetSigningKey() }}

var recordLiftBan = &changerecorder.Verb{Word: changelog.LiftBan,
	Signed: func(r *systemv1.SystemRequest) []byte { return r.GetLiftBan().GetOrder() },
	Detail: func(r *systemv1.SystemRequest, reply *systemv1.SystemReply) string {
		order := &systemv1.LiftBanOrder{}
		if plain := r.GetLiftBan().GetPlain(); plain != nil {
			order = plain
		} else if !changerecorder.OpenSigned(r.GetLiftBan().GetOrder(), order) {
			return ""
		}
		if reply != nil && !reply.GetLiftBan().GetLifted() {
			return order.GetAddress() + ", which was not banned"
		}
		return order.GetAddress()
	}}

var recordLocal = &changerecorder.Verb{Word: changelog.Posture, Revision: true,
	Detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string {
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

var recordOrderPairing = &changerecorder.Verb{Word: changelog.OrderPairing,
	Signed: func(r *systemv1.SystemRequest) []byte { return r.GetOrderPairing().GetOrder() },
	Detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string {
		order := &systemv1.PairingOrder{}
		switch {
		case !changerecorder.OpenSigned(r.GetOrderPairing().GetOrder(), order):
			return ""
		case order.Number == nil:
			return "a window for an App as " + order.GetRole().Name()
		}
		return fmt.Sprintf("the request %06d as %s", order.GetNumber(), order.GetRole().Name())
	}}

var recordAnswerPairing = &changerecorder.Verb{Word: changelog.AnswerPairing,
	Signed: func(r *systemv1.SystemRequest) []byte { return r.GetAnswerPairing().GetAnswer() },
	Detail: func(r *systemv1.SystemRequest, reply *systemv1.SystemReply) string {
		answer, report := &systemv1.PairingAnswer{}, &systemv1.PairingReport{}
		switch {
		case !changerecorder.OpenSigned(r.GetAnswerPairing().GetAnswer(), answer):
			return ""
		case len(answer.GetWords()) == 0:
			return "no"
		case reply != nil && !(changerecorder.OpenSigned(reply.GetPairingAnswered().GetReport(), report) && report.GetMatched()):
			return "words that did not match, as " + answer.GetRole().Name()
		}
		return "yes, as " + answer.GetRole().Name()
	}}

var recordAuthority = &changerecorder.Verb{
	What: func(r *systemv1.SystemRequest) string {
		switch verb := r.GetAuthority().GetVerb().(type) {
		case *systemv1.AuthorityRequest_OpenWindow:
			return changelog.OpenWindow
		case *systemv1.AuthorityRequest_CloseWindow:
			if len(verb.CloseWindow.GetRevokedOwner()) > 0 {
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
	Detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string {
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
	Key: func(r *systemv1.SystemRequest) []byte { return r.GetAuthority().GetRetire().GetSigningKey() }}

var recordReset = &changerecorder.Verb{Word: changelog.FactoryReset,
	Signed: func(r *systemv1.SystemRequest) []byte { return r.GetFactoryReset().GetOrder() }}

var recordDisk = &changerecorder.Verb{Word: changelog.UseDisk,
	Signed: func(r *systemv1.SystemRequest) []byte { return r.GetUseDisk().GetOrder() },
	Detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string {
		order := &systemv1.DiskOrder{}
		if !changerecorder.OpenSigned(r.GetUseDisk().GetOrder(), order) {
			return ""
		}
		detail := order.GetModel() + " …" + order.GetSerialEnd()
		if order.GetErase() {
			detail += ", erased"
		}
		return detail
	}}

var recordFixFinding = &changerecorder.Verb{Word: changelog.FixFinding,
	Detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string { return r.GetFixFinding().GetId() }}

var recordUpdate = &changerecorder.Verb{Word: changelog.Update,
	Detail: func(_ *systemv1.SystemRequest, reply *systemv1.SystemReply) string {
		if reply == nil {
			return ""
		}
		return reply.GetUpdate().GetFromVersion() + " to " + reply.GetUpdate().GetToVersion()
	}}

var recordBitcoinCore = &changerecorder.Verb{Word: changelog.BitcoinCore,
	Signed: func(r *systemv1.SystemRequest) []byte { return r.GetFinishBitcoinCore().GetOrder() },
	Detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string {
		order := &systemv1.NodeOrder{}
		if !changerecorder.OpenSigned(r.GetFinishBitcoinCore().GetOrder(), order) {
			return ""
		}
		return order.GetInstall().GetArchive()
	}}

var recordRebuild = &changerecorder.Verb{Word: changelog.RebuildChain,
	Signed: func(r *systemv1.SystemRequest) []byte { return r.GetOrderRebuild().GetOrder() },
	Detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string {
		order := &systemv1.NodeOrder{}
		if !changerecorder.OpenSigned(r.GetOrderRebuild().GetOrder(), order) {
			return ""
		}
		if order.GetRebuild().GetWay() == systemv1.RebuildChain_WAY_RESYNC {
			return "from the network"
		}
		return "from the disk"
	}}

var recordService = &changerecorder.Verb{Word: changelog.Service,
	Detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string {
		action := strings.ToLower(strings.TrimPrefix(r.GetChangeService().GetAction().String(), "SERVICE_ACTION_"))
		return action + " " + r.GetChangeService().GetName()
	}}

var recordNodeSettings = &changerecorder.Verb{Word: changelog.NodeSettings,
	Signed: func(r *systemv1.SystemRequest) []byte { return r.GetChangeNodeSettings().GetOrder() },
	Detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string {
		order := &systemv1.NodeSettingsOrder{}
		if !changerecorder.OpenSigned(r.GetChangeNodeSettings().GetOrder(), order) {
			return ""
		}
		s, err := settings.FromMessage(order.GetSettings())
		if err != nil {
			return ""
		}
		return strings.Join(strings.Fields(s.Text()), " ")
	}}

var recordTimeZone = &changerecorder.Verb{Word: changelog.TimeZone,
	Detail: func(r *systemv1.SystemRequest, _ *systemv1.SystemReply) string { return r.GetSetTimeZone().GetName() }}
