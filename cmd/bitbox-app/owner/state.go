// Package owner follows the Bases of an App, carries out what its owner asks of them, and puts
// the questions that come with it. The full screen and the window show its State; it knows
// neither a terminal nor a page.
package owner

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// State is all that an owner's App knows at one moment. It is never changed once it was given
// out, so it may be read by several goroutines.
type State struct {
	Bases []Base
	// Nearby are the announced Bases, paired or not, by their names.
	Nearby []Announced
	// SearchErr is why the search for Bases fails, StorageErr why the pairings of this App cannot be read,
	// and UnstoredErr why it cannot store what it has learned from a Base; nil if they do not.
	// client.Explain and words.Language.Problem say an error of this state.
	SearchErr, StorageErr, UnstoredErr error
	// Deeds are those under way, then the newest that have ended; at most [MaxDeeds].
	Deeds []DeedState
}

// MaxDeeds is how many deeds are remembered, MaxEvents how many events of each Base, and MaxFollowed
// how many Bases are asked all the time. Each one costs a session with a stream at both ends.
const (
	MaxDeeds    = 32
	MaxEvents   = 200
	MaxFollowed = 64
)

// Announced is a Base that announces itself. As long as it does, it keeps its ID.
type Announced struct {
	client.Nearby
	ID int
}

// BestAddress is the first that means the same on other machines of the network: a link-local one has a
// zone, which is an interface of this machine. If all are link-local, it is the first; empty: there is none.
func BestAddress(addresses []string) string {
	if len(addresses) == 0 {
		return ""
	}
	return addresses[max(0, slices.IndexFunc(addresses, func(address string) bool {
		a, err := netip.ParseAddrPort(address)
		return err == nil && a.Addr().Zone() == ""
	}))]
}

// Base returns the Base with this id.
func (s State) Base(id string) (Base, bool) {
	for _, b := range s.Bases {
		if b.ID() == id {
			return b, true
		}
	}
	return Base{}, false
}

// Deed returns the deed with this number.
func (s State) Deed(number uint64) (DeedState, bool) {
	for _, d := range s.Deeds {
		if d.Number == number {
			return d, true
		}
	}
	return DeedState{}, false
}

// Connection is how the conversation with a Base is.
type Connection int

// The connections.
const (
	Connecting Connection = iota
	Connected
	// Doubted: the Base may have gone; it is asked.
	Doubted
	// Lost: it did not answer, and is asked again at Base.Again.
	Lost
	// Ended: asking again is useless until the owner does something, such as pairing again.
	Ended
	// Unfollowed: this App has more than MaxFollowed Bases, and does not ask this one by itself.
	Unfollowed
)

// Base is a Base that this App is paired with.
type Base struct {
	client.Base
	Connection Connection
	// Err is why it does not answer; Again is when it is asked again.
	Err   error
	Again time.Time
	// Look is its last answer, At when it came; Look.Info is nil before the first.
	Look Look
	At   time.Time
	// Findings are those of its last audit, the worst first. HasAudit is false if it has none for
	// this App.
	Findings  []*basev1.Finding
	HasAudit  bool
	AuditedAt time.Time
	Auditing  bool
	AuditErr  error
	// Events are the newest last, at most [MaxEvents].
	Events []Event
	// Missing is how many further events have happened that the Base no longer keeps, or that were too
	// long; at most mostMissing are counted.
	Missing int
	heard   uint64 // the sequence of the last event
	// Parts are what pages have asked for, by Want.
	Parts map[Want]Answered
}

// ID names the Base in addresses of pages: letters and digits only, and always the same.
func (b Base) ID() string { return hex.EncodeToString(b.PublicKey[:8]) }

// RoleNow is what this App may do at the Base: what the Base has said last.
func (b Base) RoleNow() basev1.Role {
	if now := b.Look.Info.GetCaller().GetRole(); now != basev1.Role_ROLE_UNSPECIFIED {
		return now
	}
	return b.Role
}

// Gone tells whether the Base does not answer.
func (b Base) Gone() bool { return b.Connection == Lost || b.Connection == Ended }

// RoleAsOf is when the Base reported RoleNow, unless that is fresh; then it is zero.
func (b Base) RoleAsOf() time.Time {
	switch {
	case b.Look.Info.GetCaller().GetRole() == basev1.Role_ROLE_UNSPECIFIED:
		return b.RoleAt
	case b.Gone():
		return b.At
	}
	return time.Time{}
}

// Event is something that happened, Times in a row from First to At.
type Event struct {
	First, At time.Time
	Times     int
	*basev1.Event
}

// Want is a part of a Base that is asked for only while somebody looks at it.
type Want struct {
	Part Part
	// Subject is the name of the service for Logs.
	Subject string
}

// Part is a kind of Want.
type Part int

// The parts.
const (
	// Logs are the newest lines of a service; Answered.Lines, and they grow.
	Logs Part = iota + 1
	// Changes is the log of changes, verified; Answered.Changes.
	Changes
	// Wallets are those that are connected now; Answered.Wallets.
	Wallets
	// Disks are the disks of the machine, and how the one of the chain is; Answered.Disks.
	Disks
	// Software is what runs and what could be installed; Answered.Update, Answered.Newer and ListFrom.
	Software
	// Peers are those of the node; Answered.Peers.
	Peers
	// NodeSettings are which node the Base runs; Answered.NodeSettings.
	NodeSettings
	// TimeZones are those that the machine knows; Answered.TimeZones.
	TimeZones
)

// Answered is the answer to a Want. It is zero while the Base is being asked.
type Answered struct {
	At      time.Time
	Err     error // the last answer stays beside it
	Lines   []*basev1.LogEntry
	Changes *client.ChangeLog
	Wallets *basev1.GetWalletsResponse
	Disks   *basev1.ListDisksResponse
	// Update is what the Base says of its software, with what its helper has signed in place of
	// the Middleware's word. Newer is the release that this App knows of; nil: none. ListFrom is the
	// address of the last list of releases; empty: this App has fetched none.
	Update       *basev1.GetUpdateResponse
	Newer        *Newer
	ListFrom     string
	Peers        *basev1.ListPeersResponse
	NodeSettings *basev1.ChosenNode
	TimeZones    *basev1.ListTimeZonesResponse
}

// DeedState is a deed, and how far it is.
type DeedState struct {
	Number uint64
	// Base is the id of the Base; empty for a pairing.
	Base  string
	Deed  Deed
	Began time.Time
	Ended time.Time // zero while it is under way
	// Steps are the sentences so far, the newest last.
	Steps []words.Said
	// Sent and Total are the bytes of a file on its way to the Base; Total is 0 without one.
	Sent, Total uint64
	// Question waits for an answer; nil: none.
	Question *Question
	// Agreed: the owner has said yes to the last question.
	Agreed bool
	// Compared is the question about a code or words that the owner has said yes to. The Base shows the
	// code until both sides have said yes.
	Compared *Question
	// Number of a pairing that has to be accepted at the Base; empty before.
	RequestNumber string
	// Result is one sentence about what was done; Err is why it was not, and Leaves is about the state
	// in which that leaves the Base.
	Result, Leaves words.Said
	Err            error
	// Made is the pairing that was made.
	Made *client.Base
}

// QuestionKind is what has to be answered.
type QuestionKind int

// The questions.
const (
	// Consent: the changes, yes or no.
	Consent QuestionKind = iota + 1
	// Compare: does the Base show the same code; Question.Code has it. Yes or no.
	Compare
	// TellWords: the owner's App is told the six words of Question.Code. Yes if it says they match.
	TellWords
	// TypeWords: the six words of a new App, typed; Question.App is who asks.
	TypeWords
	// TypeSentence: Question.Sentence, typed exactly, in any language.
	TypeSentence
)

// Question is shown until it is answered, or until its deed ends.
type Question struct {
	// ID is a number that no other question has. An answer names it; it is void for another
	// question, and for one whose words have changed.
	ID    uint64
	Kind  QuestionKind
	Since time.Time
	// Ready is the moment from which a yes counts: a yes that comes sooner was meant for
	// something else.
	Ready    time.Time
	Changes  []client.PostureChange
	Code     client.Code
	App      client.NewApp
	Sentence words.Said
}

// Answer is what the owner says.
type Answer struct {
	Yes  bool
	Text string // typed words, for the kinds that ask for them
}
