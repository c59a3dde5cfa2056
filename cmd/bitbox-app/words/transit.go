package words

import (
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// These are in English, for pages that do not ask their language yet.

// When is English.When.
func When(t, now time.Time) string { return English.When(t, now) }

// Duration is English.Duration.
func Duration(seconds uint64) string { return English.Duration(seconds) }

// Size is English.Size.
func Size(bytes uint64) string { return English.Size(bytes) }

// Free is English.Free.
func Free(available, total uint64) string { return English.Free(available, total) }

// Role is English.Role.
func Role(role basev1.Role) string { return English.Role(role) }

// Severity is English.Severity.
func Severity(f *basev1.Finding) string { return English.Severity(f) }

// NodeState is English.NodeState.
func NodeState(n *basev1.Node) string { return English.NodeState(n) }

// Network is English.Network.
func Network(network basev1.Network) string { return English.Network(network) }

// Progress is English.Progress.
func Progress(n *basev1.Node) string { return English.Progress(n) }

// WalletServer is English.WalletServer.
func WalletServer(s *basev1.WalletServer) string { return English.WalletServer(s) }
