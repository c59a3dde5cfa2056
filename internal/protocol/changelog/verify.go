package changelog

import (
	"bytes"

	"google.golang.org/protobuf/proto"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Errors of an App that looks at the log. Each but ErrNewEpoch means that somebody has lied
// or has rewritten something.
var (
	// ErrHead: the helper's signature is not for these entries or this question.
	ErrHead = reason.New("what the Base has signed does not fit the log of changes that it shows, or the question; do not rely on it, and check the Base's console")
	// ErrShorter: entries that this App has seen are missing.
	ErrShorter = reason.New("the log of changes lacks entries that this App has seen before; somebody has removed them")
	// ErrRewritten: an entry that this App has seen is another one now.
	ErrRewritten = reason.New("the log of changes is not the one that this App has seen before; somebody has rewritten it")
	// ErrForgotten: the oldest entries are gone, though the log is not full.
	ErrForgotten = reason.New("the beginning of the log of changes is missing, though the log is not full; somebody has removed it")
	// ErrNewEpoch: the Base was reset and has begun a new log.
	ErrNewEpoch = reason.New("the Base has begun a new log of changes, as after a factory reset; if nobody has reset it, do not rely on the Base")
)

// Memory is what an App keeps between two looks. The zero Memory knows nothing yet.
type Memory struct {
	Epoch  posture.Epoch `json:"epoch"`
	Number uint64        `json:"number"`
	Hash   Hash          `json:"hash"`
}

// Expectation is what an App knows before it looks.
type Expectation struct {
	// Base is K_state, which came with the pairing.
	Base posture.SigningKey
	// Memory is that of the last look.
	Memory Memory
	// Nonce are the 32 random bytes of the App's last question.
	Nonce []byte
}

// View is a log that was verified.
type View struct {
	// Entries are all that are kept, the oldest first.
	Entries []*systemv1.ChangeEntry
	// Hashes are theirs.
	Hashes []Hash
	// Last is the number of the last entry, 0 if there is none, and its hash.
	Last     uint64
	LastHash Hash
	// Forgotten is the number of entries that are no longer kept.
	Forgotten uint64
	// Missed: the App has not seen some of those.
	Missed bool

	epoch posture.Epoch
}

// Memory returns what the App is to keep, before it acts on the View.
func (v *View) Memory() Memory { return Memory{v.epoch, v.Last, v.LastHash} }

// check is one reason not to believe a log.
type check struct {
	name   string
	refuse func(*looking) error
}

// looking is what is being verified.
type looking struct {
	Expectation
	head *systemv1.ChangesHead
	log  *Log
}

// checks stand in the order in which they are made, after the signature and the chain.
var checks = []check{
	{"this Base", func(l *looking) error { return unless(bytes.Equal(l.head.GetBaseId(), l.Base[:]), ErrHead) }},
	{"nonce", func(l *looking) error {
		return unless(len(l.Nonce) == nonceSize && bytes.Equal(l.head.GetNonce(), l.Nonce), ErrHead)
	}},
	{"epoch", func(l *looking) error { return unless(len(l.head.GetEpoch()) == len(posture.Epoch{}), ErrHead) }},
	{"known epoch", func(l *looking) error {
		return unless(l.Memory == Memory{} || bytes.Equal(l.head.GetEpoch(), l.Memory.Epoch[:]), ErrNewEpoch)
	}},
	{"whole", func(l *looking) error {
		last, hash := l.log.Last()
		return unless(last == l.head.GetLastNumber() && bytes.Equal(l.head.GetLastHash(), hash[:]), ErrHead)
	}},
	{"not shorter", func(l *looking) error { return unless(l.head.GetLastNumber() >= l.Memory.Number, ErrShorter) }},
	{"same history", func(l *looking) error {
		hash, kept := l.log.hashOf(l.Memory.Number)
		return unless(!kept || hash == l.Memory.Hash, ErrRewritten)
	}},
	{"forgotten when full", func(l *looking) error { return unless(l.log.before == 0 || l.log.Len() >= Kept, ErrForgotten) }},
}

const nonceSize = 32

func unless(holds bool, err error) error {
	if holds {
		return nil
	}
	return err
}

// hashOf is the hash of an entry, false if it is unknown or forgotten.
func (l *Log) hashOf(number uint64) (Hash, bool) {
	switch {
	case number == l.before:
		return l.anchor, true
	case number < l.before || number > l.before+uint64(len(l.entries)):
		return Hash{}, false
	}
	return l.entries[number-l.before-1].Hash, true
}

// ReadHead returns what the helper has signed, if it was the helper.
func ReadHead(base posture.SigningKey, signed []byte) (*systemv1.ChangesHead, error) {
	message, err := posture.Unseal(labelHead, signed, base)
	if err != nil {
		return nil, reason.Errorf("the log of changes is not signed by the Base: %w", err)
	}
	head := &systemv1.ChangesHead{}
	if err := proto.Unmarshal(message, head); err != nil {
		return nil, reason.Errorf("%w: %w", ErrHead, err)
	}
	if err := posture.RefuseUnknown(head); err != nil {
		return nil, err
	}
	if len(head.GetAnchorHash()) != len(Hash{}) {
		return nil, ErrHead
	}
	return head, nil
}

// Before is the number of the entry after which the kept ones begin.
func Before(head *systemv1.ChangesHead) uint64 {
	if head.GetFirstNumber() == 0 {
		return head.GetLastNumber()
	}
	return head.GetFirstNumber() - 1
}

// Verify is the App's side. first is the head that came with the first stretch, which says
// where the kept entries begin; last the one that came with the last; entries are all
// between, from an untrusted carrier. The same head will do if there was one stretch.
func Verify(expect Expectation, first, last *systemv1.ChangesHead, entries [][]byte) (*View, error) {
	return verifyWith(checks, expect, first, last, entries)
}

func verifyWith(checks []check, expect Expectation, first, last *systemv1.ChangesHead, entries [][]byte) (*View, error) {
	l := &looking{Expectation: expect, head: last, log: Restore(Before(first), Hash(first.GetAnchorHash()))}
	view := &View{Forgotten: Before(first)}
	for _, b := range entries {
		if err := l.log.Add(b); err != nil {
			return nil, err
		}
		e, err := Parse(b)
		if err != nil {
			return nil, err
		}
		_, hash := l.log.Last()
		view.Entries, view.Hashes = append(view.Entries, e), append(view.Hashes, hash)
	}
	for _, c := range checks {
		if err := c.refuse(l); err != nil {
			return nil, err
		}
	}
	view.Last, view.LastHash = l.log.Last()
	view.Missed = expect.Memory != (Memory{}) && expect.Memory.Number < l.log.before
	copy(view.epoch[:], last.GetEpoch())
	return view, nil
}
