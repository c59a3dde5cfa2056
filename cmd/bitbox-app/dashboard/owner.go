package dashboard

import "github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"

// Package owner follows Bases and acts on them.
type (
	Source  = owner.Source
	Session = owner.Session
	Look    = owner.Look
	Access  = owner.Access
	Door    = owner.Door
	Deed    = owner.Deed
)

// The deeds that keys ask for.
const (
	OpenWindow  = owner.OpenWindow
	CloseWindow = owner.CloseWindow
	EndLease    = owner.EndLease
	ConfirmTry  = owner.ConfirmTry
	LiftBan     = owner.LiftBan
	Fix         = owner.Fix
	Lockdown    = owner.Lockdown
	Unlock      = owner.Unlock
)
