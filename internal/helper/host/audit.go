package host

import (
	"context"
	"log/slog"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/audit"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Auditor is the Auditor of a real machine.
type Auditor struct {
	// System is the audited system. It must be set before the helper runs.
	System audit.System
	// Log takes why a check got no answer.
	Log *slog.Logger
}

var severities = map[audit.Severity]basev1.Finding_Severity{
	audit.Info:     basev1.Finding_SEVERITY_INFO,
	audit.Warning:  basev1.Finding_SEVERITY_WARNING,
	audit.Critical: basev1.Finding_SEVERITY_CRITICAL,
}

// Audit runs every check.
func (a *Auditor) Audit(ctx context.Context, e posture.Effective) []*basev1.Finding {
	var list []*basev1.Finding
	for _, f := range audit.Run(ctx, a.System, audit.Expectation{Posture: e}) {
		if f.Err != nil {
			a.Log.Warn("a check of the audit got no answer", "id", f.ID, "error", f.Err)
		}
		list = append(list, &basev1.Finding{
			Id: f.ID, Severity: severities[f.Severity], Title: f.Title, Expected: f.Expected, Found: f.Found,
			Why: f.Why, Fix: f.Fix, Fixable: f.Fixable,
		})
	}
	return list
}

// Fix repairs one finding.
func (a *Auditor) Fix(ctx context.Context, e posture.Effective, id string) error {
	if err := audit.Fix(ctx, a.System, audit.Expectation{Posture: e}, id); err != nil {
		return reason.Errorf("the audit's fix: %w", err)
	}
	return nil
}

// Units checks only the units.
func (a *Auditor) Units(ctx context.Context) ([]string, error) { return audit.Units(ctx, a.System) }
