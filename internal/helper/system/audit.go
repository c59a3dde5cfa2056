package system

import (
	"context"
	"slices"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/turns"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/version"
)

const (
	// auditTime bounds one audit.
	auditTime = 3 * time.Minute
	// auditRest is how long the answer to one audit serves for all who ask: an audit
	// runs a dozen programs, and a Middleware may ask without end.
	auditRest = 5 * time.Second
)

// Auditor compares the live machine with what is in force (internal/helper/audit).
type Auditor interface {
	Audit(ctx context.Context, e posture.Effective) []*basev1.Finding
	// Fix repairs a finding by its id.
	Fix(ctx context.Context, e posture.Effective, id string) error
	// Units tells what is wrong with the units alone, one thing to a line.
	Units(ctx context.Context) ([]string, error)
}

func (h *Helper) runAudit(ctx context.Context) (*systemv1.SystemReply, error) {
	if h.config.Auditor == nil {
		return nil, helperclient.Errorf(helperclient.CodeInternal, "this Base has no audit")
	}
	findings, err := h.audit(ctx)
	if err != nil {
		return nil, err
	}
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_Audit{Audit: &systemv1.AuditResult{Findings: findings,
		BuiltWith: version.Toolchain()}}}, nil
}

// audit runs one audit at a time, and tells watchers what the one before had not
// found.
func (h *Helper) audit(ctx context.Context) ([]*basev1.Finding, error) {
	if err := h.auditTurn.Take(ctx); err != nil {
		return nil, err
	}
	defer h.auditTurn.End()
	ctx, cancel := context.WithTimeout(ctx, auditTime)
	defer cancel()
	h.mu.Lock()
	wanted, before := h.inForceLocked(), h.version
	known, fresh := h.findings, h.auditedVersion == before && h.config.Clock()-h.auditedAt < auditRest
	h.mu.Unlock()
	if fresh {
		return known, nil
	}
	findings := append(h.damagedChanges(), h.config.Auditor.Audit(ctx, wanted)...)
	if err := ctx.Err(); err != nil {
		return nil, helperclient.Errorf(helperclient.CodeInternal, "the audit was not finished: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.version != before || h.convergence.version != before {
		// The machine was on its way to something else: what differs is no drift.
		return findings, nil
	}
	var drift []*basev1.Finding
	for _, finding := range findings {
		if finding.GetSeverity() >= basev1.Finding_SEVERITY_WARNING && !slices.ContainsFunc(h.findings, func(known *basev1.Finding) bool {
			return known.GetId() == finding.GetId() && known.GetFound() == finding.GetFound()
		}) {
			drift = append(drift, finding)
			h.log.Warn("an audit has found something", "audit", true, "id", finding.GetId(), "found", finding.GetFound())
		}
	}
	h.findings, h.auditedAt, h.auditedVersion = findings, h.config.Clock(), before
	if len(drift) > 0 {
		h.publishLocked(&basev1.Event{Event: &basev1.Event_DriftFound{DriftFound: &basev1.DriftFoundEvent{Findings: drift}}})
	}
	return findings, nil
}

// damagedChanges is the finding that only the helper can make: its own log.
func (h *Helper) damagedChanges() []*basev1.Finding {
	_, err := h.changes.Usable()
	if err == nil {
		return nil
	}
	return []*basev1.Finding{{
		Id: "changes-damaged", Severity: basev1.Finding_SEVERITY_CRITICAL, Title: "The log of changes cannot be used",
		Expected: "the log of changes as it was written", Found: err.Error(),
		Why: "It says who has changed what. Either the disk is failing, or somebody wants something not to be seen.",
		Fix: "Nothing is recorded there meanwhile, only in the journal. Put a copy of the file back, or begin anew by a factory reset.",
	}}
}

// fixFinding repairs what an audit has found, and answers with a new audit.
func (h *Helper) fixFinding(ctx context.Context, id string) (*systemv1.SystemReply, error) {
	if h.config.Auditor == nil {
		return nil, helperclient.Errorf(helperclient.CodeInternal, "this Base has no audit")
	}
	if err := h.auditTurn.Take(ctx); err != nil {
		return nil, err
	}
	fixing, cancel := context.WithTimeout(ctx, auditTime)
	err := h.config.Auditor.Fix(fixing, h.Effective(), id)
	cancel()
	h.mu.Lock()
	h.auditedVersion = 0 // look again
	h.mu.Unlock()
	h.auditTurn.End()
	if err != nil {
		return nil, helperclient.Errorf(helperclient.CodeNothing, "%w", err)
	}
	h.log.Info("a finding was fixed", "audit", true, "id", id)
	return h.runAudit(ctx)
}

// Reapply puts what is in force in force again, whole, whether or not something
// seems to differ, and returns when it is.
func (h *Helper) Reapply(ctx context.Context) error {
	h.mu.Lock()
	h.again = true
	h.version++
	h.worker.Wake()
	h.mu.Unlock()
	return h.applied(ctx)
}

func (h *Helper) auditAtIntervals(ctx context.Context) {
	turns.Every(ctx, h.config.AuditInterval, func() {
		if _, err := h.audit(ctx); err != nil && ctx.Err() == nil {
			h.log.Warn("an audit failed", "error", err)
		}
	})
}
