package system

import (
	"context"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/factoryreset"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/machine"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/turns"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/version"
)

// getHealth is for the version that installs another one.
func (h *Helper) getHealth(ctx context.Context, _ *caller.Call, _ *systemv1.GetHealth) (*systemv1.SystemReply, error) {
	ctx, cancel := context.WithTimeout(ctx, turns.AskTime)
	defer cancel()
	health := &systemv1.Health{OldestVersion: h.oldest()}
	var failure error
	if _, health.Applying, failure = h.keeper.InForce(); failure != nil {
		health.NotApplied = reason.Of(failure)
	}
	_, health.Middleware = h.keeper.Events.Watched()
	var err error
	health.Units, err = h.drift.Units(ctx)
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_Health{Health: health}}, err
}

// getSummary answers with the summary for the person who stands at the Base.
func (h *Helper) getSummary(context.Context, *caller.Call, *systemv1.GetSummary) (*systemv1.SystemReply, error) {
	s := h.keeper.Summary()
	s.Addresses, s.SoftwareVersion = machine.Addresses(), version.Software
	if r, ok := factoryreset.Last(h.config.Directory); ok {
		s.LastReset = &systemv1.ResetRecord{OrderedAt: r.OrderedAt.Unix(), By: r.By}
	}
	is := h.keeper.Events.Is()
	s.Bans, s.Findings, s.Audited = is.GetBans(), is.GetFindings(), h.drift.Audited()
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_Summary{Summary: s}}, nil
}
