// Package caller says who asks the helper. Only the kernel identifies a caller, by the user of
// its process.
package caller

import (
	"os/user"
	"strconv"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/firewall"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Who is a caller. The zero Who may do nothing.
type Who int

// The callers.
const (
	// Middleware faces the network, and may have been taken over.
	Middleware Who = iota + 1
	// Console is the console, so its user is present at the Base.
	Console
	// Root is root.
	Root
)

// String names the caller, in errors and in the log.
func (w Who) String() string {
	switch w {
	case Middleware:
		return "middleware"
	case Console:
		return "console"
	case Root:
		return "root"
	default:
		return "nobody"
	}
}

// Pairing is what the ceremony authority takes this caller for.
func (w Who) Pairing() pairing.Caller {
	switch w {
	case Middleware:
		return pairing.CallerMiddleware
	case Console, Root:
		return pairing.CallerConsole
	default:
		return 0
	}
}

// Actor is what the history of the posture says of this caller.
func (w Who) Actor() posture.Actor {
	if w == Middleware {
		return posture.ActorMiddleware
	}
	return posture.ActorConsole
}

// ConsoleUser is the user of what stands at the Base.
const ConsoleUser = "bitbox-base-console"

// Users are the numbers of the users that are callers, beside root.
type Users struct{ Middleware, Console uint32 }

// LookUp asks the system for the numbers of the users.
func LookUp() (Users, error) {
	var users Users
	for name, uid := range map[string]*uint32{firewall.MiddlewareUser: &users.Middleware, ConsoleUser: &users.Console} {
		found, err := user.Lookup(name)
		if err != nil {
			return Users{}, reason.Errorf("look up the user %s, who may use the system helper: %w; install the package's users (systemd-sysusers)",
				name, err)
		}
		number, err := strconv.ParseUint(found.Uid, 10, 32)
		if err != nil || number == 0 {
			return Users{}, reason.Errorf("look up the user %s: its number %q is invalid", name, found.Uid)
		}
		*uid = uint32(number)
	}
	return users, nil
}

// Who tells who a peer is.
func (u Users) Who(peer ipc.Peer) (Who, error) {
	switch peer.UID {
	case 0:
		return Root, nil
	case u.Middleware:
		return Middleware, nil
	case u.Console:
		return Console, nil
	default:
		return 0, reason.Errorf("user %d may not use the system helper", peer.UID)
	}
}

// Call is one request of a caller that may be answered.
type Call struct {
	Who Who
	// App is the id of the App for which it is, by the Middleware's word; empty: none is named.
	App string
	// Send sends a reply before the last one.
	Send func(*systemv1.SystemReply) error
}

// Progress tells what is being done. A caller that does not read it still sees the result.
func (c *Call) Progress(p *systemv1.Progress) {
	_ = c.Send(&systemv1.SystemReply{Result: &systemv1.SystemReply_Progress{Progress: p}})
}
