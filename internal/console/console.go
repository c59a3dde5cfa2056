// Package console is the user interface at the Base. During a pairing it shows request
// numbers and codes to the person there, and gives their answers to the ceremony authority
// (internal/protocol/pairing). It never talks to the Middleware.
//
// There are three variants:
//
//   - [Screen] is a full screen, as on the appliance. The drawing (draw) and the meaning of
//     keys (desk) are pure; [Screen.Run] does the I/O.
//   - [Run] is a dialogue on a terminal, line by line.
//   - [Log] writes to a log; the answers come from `bitbox-base pairing`.
package console

import (
	"context"
	"fmt"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
)

// refresh is the least time between two snapshots, so that a flood of requests from the network
// cannot make the display unreadable or the log long.
const refresh = 300 * time.Millisecond

// follow passes snapshots on until ctx ends or the authority fails.
func follow(ctx context.Context, authority pairing.Client, show func(*systemv1.Snapshot)) error {
	for seen := uint64(0); ; {
		snapshot, err := authority.Watch(ctx, seen)
		if err != nil {
			return fmt.Errorf("show pairings: %w", err)
		}
		if snapshot.GetVersion() != seen {
			show(snapshot)
		}
		seen = snapshot.GetVersion()
		select {
		case <-time.After(refresh):
		case <-ctx.Done():
			return fmt.Errorf("show pairings: %w", ctx.Err())
		}
	}
}

// asksFor says which role an owner has signed for the open window, empty if none.
func asksFor(s *systemv1.Snapshot) string {
	switch role := s.GetWindowRole(); role {
	case basev1.Role_ROLE_UNSPECIFIED:
		return ""
	case basev1.Role_ROLE_VIEWER:
		return "An owner's App asks to let in a VIEWER."
	default:
		return "An owner's App asks to let in an " + strings.ToUpper(role.Name()) + "."
	}
}

// answeredByOwner tells whether an owner's App answers the ceremony, and not the person at the
// Base.
func answeredByOwner(c *systemv1.Ceremony) bool { return len(c.GetByOwner()) > 0 }

// outcome says how a pairing ended.
func outcome(last *systemv1.LastCeremony) string {
	switch last.GetOutcome() {
	case systemv1.LastCeremony_OUTCOME_ENROLLED:
		// A name is untrusted text, so it is quoted.
		return fmt.Sprintf("%q is paired as %s.", last.GetAppName(), last.GetRole().Name())
	case systemv1.LastCeremony_OUTCOME_REJECTED_AT_BASE:
		return "The pairing was rejected here. No App was let in."
	case systemv1.LastCeremony_OUTCOME_REJECTED_BY_APP:
		return "The pairing was rejected in the App. No App was let in."
	case systemv1.LastCeremony_OUTCOME_TIMED_OUT:
		return "The pairing took too long. No App was let in; start it again in the App."
	case systemv1.LastCeremony_OUTCOME_CONNECTION_LOST:
		return "The connection to the App was lost. No App was let in; start it again in the App."
	case systemv1.LastCeremony_OUTCOME_REFUSED:
		return "The App's message does not verify: somebody may have interfered. No App was let in."
	default:
		return "The pairing was cancelled. No App was let in."
	}
}
