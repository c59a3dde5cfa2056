package pages

import (
	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
)

// fact is a name and what it is.
type fact struct{ Name, Text string }

// table is a table with its caption. Each row has as many cells as the head.
type table struct {
	Caption string
	// Named: a heading says the same as the caption, which is then for screen readers alone.
	Named bool
	Head  []string
	Rows  [][]string
	// More says how many rows are left out; empty: none.
	More string
}

// button is a form without fields for a person: one press begins a deed.
type button struct {
	// Action is the address that begins the deed, and Fields what it is about.
	Action string
	Fields []fact
	Text   string
	// Label is what a screen reader says, where Text alone does not say what the button is about.
	Label string
	// Class is "danger" where something is taken away.
	Class string
}

// Key tells the buttons of a page apart.
func (b button) Key() string {
	key := b.Action
	for _, f := range b.Fields {
		key += " " + f.Text
	}
	return key
}

// choice is one value of a list from which a person chooses.
type choice struct {
	Value, Text string
	Chosen      bool
}

// says are the sentences of keys.
func (v *view) says(keys ...string) []string {
	all := make([]string, len(keys))
	for n, key := range keys {
		all[n] = v.say(key)
	}
	return all
}

// operates and owns tell whether the Base would let this App do what an operator, or an owner, may
// do. A page offers nothing else.
func (v *view) operates() bool { return v.base.RoleNow() >= basev1.Role_ROLE_OPERATOR }
func (v *view) owns() bool     { return v.base.RoleNow() == basev1.Role_ROLE_OWNER }

// answered is what the Base has answered to a want of the page; zero: nothing yet.
func (v *view) answered(part owner.Part, subject string) owner.Answered {
	return v.base.Parts[owner.Want{Part: part, Subject: subject}]
}
