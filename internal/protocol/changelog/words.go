package changelog

// The words of the log. A word keeps its meaning for ever; docs/app/log.md explains them.
const (
	// Of the helper's verbs.
	Posture        = "posture"
	PostureConfirm = "posture-confirm"
	Lockdown       = "lockdown"
	ClosePairing   = "close-pairing"
	EndLease       = "end-lease"
	CutOff         = "cut-off"
	LiftBan        = "lift-ban"
	FixFinding     = "fix-finding"
	FactoryReset   = "factory-reset"
	Update         = "update"
	DebianUpdates  = "debian-updates"
	Service        = "service"
	TimeZone       = "time-zone"
	Reboot         = "reboot"
	PowerOff       = "power-off"
	BitcoinCore    = "bitcoin-core"
	RebuildChain   = "rebuild-chain"
	OrderPairing   = "order-pairing"
	AnswerPairing  = "answer-pairing"
	UseDisk        = "use-disk"
	OpenWindow     = "open-window"
	CloseWindow    = "close-window"
	AcceptPairing  = "accept-pairing"
	RetireKey      = "retire-key"
	NodeSettings   = "node-settings"

	// Of the Middleware's own changes.
	RenameApp = "rename-app"
	RevokeApp = "revoke-app"

	// Of the Base by itself.
	Begun         = "begun"
	PostureUndone = "posture-undone"
	LeaseEnded    = "lease-ended"
	AppEnrolled   = "app-enrolled"
	AppRetired    = "app-retired"
	UpdateEnded   = "update-ended"

	// Of the log about itself.
	NotListed   = "not-listed"
	NotRecorded = "not-recorded"
	CutByPower  = "cut-by-power"
)

// Words are all of them, with who may record each.
var Words = map[string]struct {
	// Middleware: it may record it, as a change of its own that no verb of the helper makes.
	Middleware bool
}{
	Posture: {}, PostureConfirm: {}, Lockdown: {}, ClosePairing: {}, EndLease: {}, CutOff: {}, LiftBan: {}, FixFinding: {},
	FactoryReset: {}, Update: {}, DebianUpdates: {}, Service: {}, TimeZone: {}, Reboot: {}, PowerOff: {}, BitcoinCore: {}, RebuildChain: {},
	OrderPairing: {}, AnswerPairing: {}, UseDisk: {}, OpenWindow: {}, CloseWindow: {}, AcceptPairing: {}, RetireKey: {}, NodeSettings: {},
	RenameApp: {Middleware: true}, RevokeApp: {Middleware: true},
	Begun: {}, PostureUndone: {}, LeaseEnded: {}, AppEnrolled: {}, AppRetired: {}, UpdateEnded: {},
	NotListed: {}, NotRecorded: {}, CutByPower: {},
}
