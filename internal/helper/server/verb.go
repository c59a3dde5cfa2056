package server

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/changerecorder"
)

// Verb is one row of the table: all that is decided about a verb of system.proto.
type Verb struct {
	// Name and Number are its own in system.proto; the number is the kind of its frame.
	Name   string
	Number protoreflect.FieldNumber
	// May are the callers that may ask for it. It is decided before a byte of the
	// request is read.
	May Callers
	Size
	// Work is how many programs it starts, or how often it has systemd do something.
	Work int
	// Closes: it makes the Base more closed, so it takes nothing from the budgets that a
	// flood of anything else uses up.
	Closes bool
	// Owners: the Middleware asks for it for owners only (its table of methods says so).
	Owners bool
	// Follows: it only follows what systemd does, and ends when its caller leaves; all
	// else that is recorded goes on to its end.
	Follows bool
	do      func(ctx context.Context, c *caller.Call, request *systemv1.SystemRequest) (*systemv1.SystemReply, error)
	// Record is how the log of changes has it; nil: it changes nothing for good, or
	// records by itself.
	Record *changerecorder.Verb
}

// Callers is a set of callers.
type Callers uint

// The sets that verbs have.
const (
	ByMiddleware Callers = 1 << caller.Middleware
	ByConsole    Callers = 1 << caller.Console
	ByRoot       Callers = 1 << caller.Root
	ByAll                = ByMiddleware | ByConsole | ByRoot
)

func (c Callers) Has(who caller.Who) bool { return c&(1<<who) != 0 }

// Size is what a verb takes of the memory, in bytes. A parsed message takes up to 60 times what
// it takes on the wire (a list of empty messages).
type Size struct {
	// Limit is the longest request.
	Limit int
	// Holds is what one call has in memory at most: the request, what is made of it, and
	// the answer.
	Holds int
}

// Row makes the row of the verb whose message is M.
func Row[M proto.Message](may Callers, size Size, work int,
	do func(ctx context.Context, c *caller.Call, m M) (*systemv1.SystemReply, error)) Verb {
	var m M
	message := m.ProtoReflect().Descriptor().FullName()
	fields := verbField.Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if field.Message().FullName() != message {
			continue
		}
		return Verb{Name: string(field.Name()), Number: field.Number(), May: may, Size: size, Work: work,
			do: func(ctx context.Context, c *caller.Call, request *systemv1.SystemRequest) (*systemv1.SystemReply, error) {
				return do(ctx, c, request.ProtoReflect().Get(field).Message().Interface().(M))
			}}
	}
	panic(fmt.Sprintf("server: %s is no verb", message))
}

var verbField = (&systemv1.SystemRequest{}).ProtoReflect().Descriptor().Oneofs().ByName("verb")

// Closing marks a verb that closes.
func (v Verb) Closing() Verb {
	v.Closes = true
	return v
}

// ForOwners marks a verb that only owners may ask for.
func (v Verb) ForOwners() Verb {
	v.Owners = true
	return v
}

// Following marks a verb that follows what systemd does.
func (v Verb) Following() Verb {
	v.Follows = true
	return v
}

// Recorded says how the log of changes has a verb.
func (v Verb) Recorded(r *changerecorder.Verb) Verb {
	v.Record = r
	return v
}

// asks tells whether a verb changes nothing, or only follows.
func (v Verb) asks() bool { return v.Follows || v.Record == nil && !v.Closes && !v.Owners }

// Table has the verbs by the kind of the frame.
type Table map[uint16]Verb

// NewTable makes a table of rows.
func NewTable(rows ...Verb) Table {
	table := Table{}
	for _, v := range rows {
		table[uint16(v.Number)] = v
	}
	return table
}
