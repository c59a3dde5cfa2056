package system

import (
	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/changerecorder"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/server"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

// The sizes that verbs have.
var (
	bare     = server.Size{Limit: 256, Holds: 256 << 10}     // a request without fields
	short    = server.Size{Limit: 8 << 10, Holds: 768 << 10} // names, numbers, keys
	list     = server.Size{Limit: 8 << 10, Holds: 4 << 20}   // the answer is long: up to 1 MiB
	logs     = server.Size{Limit: 8 << 10, Holds: 8 << 20}   // journal.MaxBytes, and what journalctl prints
	document = server.Size{Limit: posture.MaxDocumentSize + 1<<10, Holds: 8 << 20}
	preamble = server.Size{Limit: release.MaxPreambleSize + 1<<10, Holds: 8 << 20} // of a release: parsed once it is verified
	// of Bitcoin Core: SHA256SUMS with its signatures, which are passed on as they are
	signatures = server.Size{Limit: bitcoincore.MaxSums + bitcoincore.MaxSignatures + posture.MaxDocumentSize, Holds: 8 << 20}
	// of an update: bytes, not parsed. Fields that are unknown take five times their size before they are refused.
	piece = server.Size{Limit: ipc.MaxMessageSize, Holds: 6 << 20}
)

// verbs is the one table of what can be asked of the helper.
func (h *Helper) verbs() server.Table {
	return server.NewTable(
		server.Row(server.ByAll, short, 0, h.keeper.Authority).Recorded(recordAuthority), // it decides by caller and request itself

		// How open the Base is.
		server.Row(server.ByAll, list, 0, h.keeper.GetPosture),
		server.Row(server.ByMiddleware|server.ByRoot, document, 0, h.keeper.Submit).Recorded(recordSubmit),
		server.Row(server.ByMiddleware|server.ByRoot, document, 0, h.keeper.Confirm).Recorded(recordConfirm),
		server.Row(server.ByAll, list, 0, h.keeper.Restrict).Closing().Recorded(recordRestrict),
		server.Row(server.ByRoot, document, 0, h.keeper.LocalChange).Recorded(recordLocal),
		server.Row(server.ByConsole|server.ByRoot, bare, 0, h.getSummary),
		server.Row(server.ByAll, document, 0, h.resets.Take).Closing().Recorded(recordReset),
		server.Row(server.ByAll, bare, 0, h.keeper.Events.Watch),
		server.Row(server.ByMiddleware, short, 1, h.announcer.Announce),

		// Pairing by an owner's App.
		server.Row(server.ByMiddleware, document, 0, h.keeper.OrderPairing).Recorded(recordOrderPairing),
		server.Row(server.ByMiddleware, document, 0, h.keeper.AnswerPairing).Recorded(recordAnswerPairing),

		// Bans and audit.
		server.Row(server.ByAll, list, 0, h.bans.List),
		server.Row(server.ByMiddleware|server.ByRoot, document, 1, h.bans.Lift).ForOwners().Recorded(recordLiftBan),
		server.Row(server.ByAll, list, 4, h.drift.RunAudit),
		server.Row(server.ByMiddleware|server.ByRoot, list, 8, h.drift.FixFinding).ForOwners().Recorded(recordFixFinding),

		// Updates. A release has to be signed, and any App may bring it.
		server.Row(server.ByMiddleware|server.ByRoot, preamble, 1, h.updates.Begin).ForOwners(),
		server.Row(server.ByMiddleware|server.ByRoot, piece, 0, h.updates.Piece).ForOwners(),
		server.Row(server.ByMiddleware|server.ByRoot, short, 2, h.updates.Finish).ForOwners().Recorded(recordUpdate),
		server.Row(server.ByMiddleware|server.ByRoot, short, 0, h.updates.Abort).ForOwners(),
		server.Row(server.ByMiddleware|server.ByRoot, short, 1, h.updates.Confirm).ForOwners(),
		server.Row(server.ByMiddleware|server.ByRoot, short, 2, h.updates.StartOther).ForOwners().Recorded(recordUpdate),
		server.Row(server.ByAll, short, 1, h.updates.Get),
		server.Row(server.ByMiddleware|server.ByRoot, short, 0, h.updates.Watch),
		server.Row(server.ByRoot, short, 2, h.getHealth),

		// The machine and its services.
		server.Row(server.ByAll, short, 0, h.machine.Get),
		server.Row(server.ByMiddleware|server.ByRoot, short, 0, h.wallets.Get),
		server.Row(server.ByMiddleware|server.ByRoot, short, 0, h.services.List),
		server.Row(server.ByMiddleware|server.ByRoot, short, 4, h.services.Change).Recorded(recordService),
		server.Row(server.ByMiddleware|server.ByRoot, logs, 2, h.journal.ReadLogs),
		server.Row(server.ByMiddleware|server.ByRoot, list, 0, h.machine.ListTimeZones),
		// systemd reads all units again, and does nothing else meanwhile, for up to a second. It must not do so all the time.
		server.Row(server.ByMiddleware|server.ByRoot, short, 12, h.machine.SetTimeZone).Recorded(recordTimeZone),
		server.Row(server.ByMiddleware|server.ByRoot, short, 2, h.machine.Reboot).Recorded(&changerecorder.Verb{Word: changelog.Reboot}),
		server.Row(server.ByMiddleware|server.ByRoot, short, 2, h.machine.PowerOff).ForOwners().
			Recorded(&changerecorder.Verb{Word: changelog.PowerOff}),
		server.Row(server.ByMiddleware|server.ByRoot, logs, 4, h.debian.Install).Following().
			Recorded(&changerecorder.Verb{Word: changelog.DebianUpdates}),

		// The disks.
		server.Row(server.ByMiddleware|server.ByRoot, list, 4, h.disks.List),
		server.Row(server.ByMiddleware, document, 4, h.disks.Use).ForOwners().Recorded(recordDisk),
		// The Bitcoin node.
		server.Row(server.ByMiddleware|server.ByRoot, signatures, 0, h.node.Begin).ForOwners(),
		server.Row(server.ByMiddleware|server.ByRoot, piece, 0, h.node.Piece).ForOwners(),
		server.Row(server.ByMiddleware|server.ByRoot, document, 3, h.node.Finish).ForOwners().Recorded(recordBitcoinCore),
		server.Row(server.ByMiddleware|server.ByRoot, short, 0, h.node.Abort).ForOwners(),
		server.Row(server.ByMiddleware|server.ByRoot, document, 1, h.node.Rebuild).ForOwners().Recorded(recordRebuild),
		server.Row(server.ByMiddleware|server.ByRoot, document, 1, h.settings.Change).ForOwners().Recorded(recordNodeSettings),

		// The log of changes.
		server.Row(server.ByMiddleware|server.ByRoot, list, 0, h.changes.ListChanges),
		server.Row(server.ByMiddleware, short, 0, h.changes.RecordChange),
	)
}
