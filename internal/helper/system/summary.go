package system

import (
	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/factoryreset"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/version"
)

// summary is what whoever stands at the Base is shown.
func (h *Helper) summary() *systemv1.SystemReply {
	s := &systemv1.Summary{Addresses: machineInfo().GetAddresses(), SoftwareVersion: version.Software}
	if r, ok := factoryreset.Last(h.config.Directory); ok {
		s.LastReset = &systemv1.ResetRecord{OrderedAt: r.OrderedAt.Unix(), By: r.By}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = h.updateLocked(func() (posture.Output, error) { return h.ledger.Tick(h.config.Clock()), nil }) // what is left of leases
	e := h.inForceLocked()
	s.NodeName, s.Revision, s.Phase = e.NodeName, e.Revision, h.ledger.Phase()
	s.Lockdown, s.PairingClosed = e.Lockdown, e.PairingClosed
	s.UndoneInMs = uint64(h.ledger.UndoneIn(h.config.Clock()).Milliseconds())
	for _, app := range e.Apps {
		s.Apps++
		if app.Role == basev1.Role_ROLE_OWNER {
			s.Owners++
		}
	}
	if e.SSH != nil {
		s.Ssh = &systemv1.OpenSSH{Keys: uint32(len(e.SSH.Keys)), RemainingMs: uint64(e.SSH.Remaining.Milliseconds())}
	}
	for _, endpoint := range e.Endpoints {
		if endpoint.Kind != posture.KindEntry {
			s.Apis = append(s.Apis, &systemv1.OpenAPI{
				Kind: string(endpoint.Kind), Port: uint32(endpoint.Port), RemainingMs: uint64(endpoint.Remaining.Milliseconds())})
		}
	}
	event := h.describeLocked(nil)
	s.Bans, s.Findings, s.Audited = event.GetBans(), event.GetFindings(), h.auditedAt != 0
	s.NotApplied = h.convergence.failure != nil || h.unsaved != nil
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_Summary{Summary: s}}
}
