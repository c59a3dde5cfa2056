// Package drift has the live machine audited, by itself and when somebody asks. It remembers what
// was found, and tells those who watch what is new.
package drift

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/audit"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/events"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/turns"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/version"
)

const (
	// auditTime bounds one audit.
	auditTime = 3 * time.Minute
	// Rest is how long the answer to one audit serves for all who ask: an audit
	// runs a dozen programs, and a Middleware may ask without end.
	Rest = 5 * time.Second
)

// Auditor compares the live machine with what is in force (internal/helper/audit).
type Auditor interface {
	Audit(ctx context.Context, e posture.Effective) []*basev1.Finding
	// Fix repairs a finding by its id.
	Fix(ctx context.Context, e posture.Effective, id string) error
	// Units tells what is wrong with the units alone, one thing to a line.
	Units(ctx context.Context) ([]string, error)
}

// Posture is what is in force (internal/helper/ledger).
type Posture interface {
	// Wanted is what is to be in force, and its version.
	Wanted() (posture.Effective, uint64)
	// InForce is the version that the machine is.
	InForce() (version uint64, applying bool, failure error)
}

// Drift audits.
type Drift struct {
	auditor Auditor
	posture Posture
	// usable returns why the log of changes cannot be used, if it cannot.
	usable func() (*changelog.File, error)
	events *events.Hub
	clock  func() time.Duration
	log    *slog.Logger
	turn   turns.Turn // held while an audit runs

	mu sync.Mutex // guards what follows
	// findings are those of the last audit, made while version was auditedVersion.
	findings       []*basev1.Finding
	auditedAt      time.Duration
	auditedVersion uint64
}

// New returns a Drift. usable is that of the log of changes.
func New(auditor Auditor, posture Posture, usable func() (*changelog.File, error), hub *events.Hub, clock func() time.Duration,
	log *slog.Logger) *Drift {
	return &Drift{auditor: auditor, posture: posture, usable: usable, events: hub, clock: clock, log: log, turn: turns.New()}
}

// RunAudit answers with what an audit finds.
func (d *Drift) RunAudit(ctx context.Context, _ *caller.Call, _ *systemv1.RunAudit) (*systemv1.SystemReply, error) {
	return d.reply(ctx)
}

func (d *Drift) reply(ctx context.Context) (*systemv1.SystemReply, error) {
	findings, err := d.audit(ctx)
	if err != nil {
		return nil, err
	}
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_Audit{Audit: &systemv1.AuditResult{Findings: findings,
		BuiltWith: version.Toolchain()}}}, nil
}

// audit runs one audit at a time, and tells watchers what the one before had not
// found.
func (d *Drift) audit(ctx context.Context) ([]*basev1.Finding, error) {
	if err := d.turn.Take(ctx); err != nil {
		return nil, err
	}
	defer d.turn.End()
	ctx, cancel := context.WithTimeout(ctx, auditTime)
	defer cancel()
	wanted, before := d.posture.Wanted()
	d.mu.Lock()
	known, fresh := d.findings, d.auditedVersion == before && d.clock()-d.auditedAt < Rest
	d.mu.Unlock()
	if fresh {
		return known, nil
	}
	findings := append(d.damagedChanges(), d.auditor.Audit(ctx, wanted)...)
	if err := ctx.Err(); err != nil {
		return nil, helperclient.Errorf(helperclient.CodeInternal, "the audit was not finished: %w", err)
	}
	if is, applying, _ := d.posture.InForce(); applying || is != before {
		// The machine was on its way to something else: what differs is no drift.
		return findings, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var drift []*basev1.Finding
	warnings := uint32(0)
	for _, finding := range findings {
		if finding.GetSeverity() < basev1.Finding_SEVERITY_WARNING {
			continue
		}
		warnings++
		if !slices.ContainsFunc(d.findings, func(known *basev1.Finding) bool {
			return known.GetId() == finding.GetId() && known.GetFound() == finding.GetFound()
		}) {
			drift = append(drift, finding)
			d.log.Warn("an audit has found something", "audit", true, "id", finding.GetId(), "found", finding.GetFound())
		}
	}
	d.findings, d.auditedAt, d.auditedVersion = findings, d.clock(), before
	d.events.Note(func(is *systemv1.SystemEvent) { is.Findings = warnings })
	if len(drift) > 0 {
		d.events.Publish(&basev1.Event{Event: &basev1.Event_DriftFound{DriftFound: &basev1.DriftFoundEvent{Findings: drift}}})
	}
	return findings, nil
}

// damagedChanges is the finding that only the helper can make: its own log.
func (d *Drift) damagedChanges() []*basev1.Finding {
	_, err := d.usable()
	if err == nil {
		return nil
	}
	return []*basev1.Finding{{
		Id: "changes-damaged", Severity: basev1.Finding_SEVERITY_CRITICAL, Title: "The log of changes cannot be used",
		Expected: "the log of changes as it was written", Found: reason.Of(err), // the journal has the whole error since the log was opened
		Why: "It says who has changed what. Either the disk is failing, or somebody wants something not to be seen.",
		Fix: "Nothing is recorded there meanwhile, only in the journal. Put a copy of the file back, or start over with a factory reset.",
	}}
}

// FixFinding repairs what an audit has found, and answers with a new audit.
func (d *Drift) FixFinding(ctx context.Context, _ *caller.Call, request *systemv1.FixFinding) (*systemv1.SystemReply, error) {
	if err := d.turn.Take(ctx); err != nil {
		return nil, err
	}
	fixing, cancel := context.WithTimeout(ctx, auditTime)
	wanted, _ := d.posture.Wanted()
	err := d.auditor.Fix(fixing, wanted, request.GetId())
	cancel()
	d.expire()
	d.turn.End()
	if err != nil {
		return nil, helperclient.Errorf(helperclient.CodeNothing, "%w", err)
	}
	d.log.Info("a finding was fixed", "audit", true, "id", request.GetId())
	return d.reply(ctx)
}

// expire has the next audit look, however fresh the last one is.
func (d *Drift) expire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.auditedVersion = 0
}

// Renew audits again after something was done to the machine.
func (d *Drift) Renew(ctx context.Context) error {
	d.expire()
	_, err := d.audit(ctx)
	return err
}

// Run audits at intervals until ctx ends.
func (d *Drift) Run(ctx context.Context, interval time.Duration) {
	if interval == 0 {
		return
	}
	turns.Every(ctx, interval, func() {
		if _, err := d.audit(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("an audit failed", "error", err)
		}
	})
}

// Units tells what is wrong with the units, one thing to a line.
func (d *Drift) Units(ctx context.Context) ([]string, error) {
	list, err := d.auditor.Units(ctx)
	if err != nil {
		return nil, helperclient.Errorf(helperclient.CodeInternal, "%w", err)
	}
	return list, nil
}

// Audited tells whether there was an audit since the helper was started.
func (d *Drift) Audited() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.auditedAt != 0
}

// DebianUpdates are Debian's security updates that wait, by the last audit.
func (d *Drift) DebianUpdates() (waiting []string, unknown string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.auditedAt == 0 {
		return nil, "the Base has not looked yet since it was started"
	}
	for _, finding := range d.findings {
		switch finding.GetId() {
		case audit.Updates:
			waiting = strings.Split(finding.GetFound(), "\n")
		case audit.UpdatesUnknown, audit.UpdatesUnchecked:
			unknown = finding.GetFound()
		}
	}
	return waiting, unknown
}
