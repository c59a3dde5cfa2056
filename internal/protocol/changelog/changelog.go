// Package changelog is the log of changes: who changed what at the Base, when, and with which
// result.
//
// The entries form a hash chain. Each has the hash of the stored bytes of the one before, so no
// entry can be changed, removed or inserted without a change of all that follow. The system
// helper signs the last number and hash (ChangesHead) for each App that asks. An App remembers
// the last entry that it saw, so not even an attacker with the helper's key can rewrite entries
// that an App has seen.
//
//   - [Log] is the machine: entries in, bytes out; no I/O.
//   - [File] stores a Log on a disk, entry by entry.
//   - [Limiter] prevents strangers from pushing other entries out.
//   - [Verify] is the App's side.
package changelog

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Labels of what is hashed and of what is signed (docs/app/log.md).
const (
	labelEntry = "bitbox-base change v1"
	labelHead  = "bitbox-base changes head v1"
)

// Bounds. A log that is full has 10,000 entries of some 200 bytes, 2 MB.
const (
	// MaxEntries is how many entries are kept at most.
	MaxEntries = 10_000
	// Kept is how many are left when the oldest are forgotten, so that the file is
	// rewritten once in 500 entries and not with each.
	Kept = 9_500
	// MaxName, MaxDetail and MaxFailure are the lengths of an entry's texts, in bytes.
	MaxName    = 63
	MaxDetail  = 400
	MaxFailure = 256
	// MaxEntrySize is the length of an entry, in bytes: the above, two keys and some
	// numbers.
	MaxEntrySize = 1024
	// MaxStretch is how many entries one answer has. They fit into a message of the helper's
	// socket (1 MiB, internal/ipc).
	MaxStretch = 500
)

// ErrDamaged: the log is not what was written.
var ErrDamaged = reason.New("the log of changes is damaged")

// Hash is that of an entry; the zero Hash stands before the first.
type Hash = posture.Hash

// Stored is an entry as it is hashed, and its hash.
type Stored struct {
	Bytes []byte
	Hash  Hash
}

// Log is the chain of the entries that are kept.
type Log struct {
	anchor  Hash   // of the entry before the first that is kept
	before  uint64 // its number; 0: there was none
	entries []Stored
}

// Restore begins a Log after an entry that is no longer kept; zeros: at the beginning.
func Restore(before uint64, anchor Hash) *Log { return &Log{anchor: anchor, before: before} }

// Last is the number of the last entry, 0 if there never was one, and its hash.
func (l *Log) Last() (uint64, Hash) {
	if len(l.entries) == 0 {
		return l.before, l.anchor
	}
	return l.before + uint64(len(l.entries)), l.entries[len(l.entries)-1].Hash
}

// Len is how many entries are kept.
func (l *Log) Len() int { return len(l.entries) }

// Next makes the next entry of a draft, whose texts are made to fit and whose number and
// previous hash are set. It is not in the Log until Add.
func (l *Log) Next(draft *systemv1.ChangeEntry) (Stored, error) {
	e := proto.CloneOf(draft)
	number, hash := l.Last()
	e.Number, e.PreviousHash = number+1, hash[:]
	e.AppName, e.Detail, e.Failure = Line(e.GetAppName(), MaxName), Line(e.GetDetail(), MaxDetail), Line(e.GetFailure(), MaxFailure)
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err == nil {
		_, err = Parse(b)
	}
	if err != nil {
		return Stored{}, reason.Errorf("make entry %d of the log of changes: %w", number+1, err)
	}
	return Stored{b, posture.HashOf(labelEntry, b)}, nil
}

// Add appends bytes that Next has made, now or long ago. It refuses an entry that does
// not follow the last one.
func (l *Log) Add(b []byte) error {
	e, err := Parse(b)
	if err != nil {
		return err
	}
	number, hash := l.Last()
	if e.GetNumber() != number+1 || string(e.GetPreviousHash()) != string(hash[:]) {
		return reason.Errorf("entry %d does not follow entry %d: %w", e.GetNumber(), number, ErrDamaged)
	}
	l.entries = append(l.entries, Stored{slices.Clone(b), posture.HashOf(labelEntry, b)})
	return nil
}

// Forget drops the oldest entries of a Log that is full, and tells whether it has.
func (l *Log) Forget() bool {
	if len(l.entries) < MaxEntries {
		return false
	}
	drop := len(l.entries) - Kept
	l.before, l.anchor = l.before+uint64(drop), l.entries[drop-1].Hash
	l.entries = slices.Clone(l.entries[drop:])
	return true
}

// Stretch returns at most so many entries (0 and all above MaxStretch: MaxStretch) with
// numbers above after, the oldest first.
func (l *Log) Stretch(after uint64, most uint32) [][]byte {
	if most == 0 || most > MaxStretch {
		most = MaxStretch
	}
	var stretch [][]byte
	from := max(after, l.before) - l.before
	for n := from; n < uint64(len(l.entries)) && len(stretch) < int(most); n++ {
		stretch = append(stretch, l.entries[n].Bytes)
	}
	return stretch
}

// Newest calls look for each entry that is kept, the newest first, until it returns false.
func (l *Log) Newest(look func(*systemv1.ChangeEntry) bool) {
	for _, s := range slices.Backward(l.entries) {
		e := &systemv1.ChangeEntry{}
		if err := proto.Unmarshal(s.Bytes, e); err != nil || !look(e) { // Add has parsed it
			return
		}
	}
}

// Head says what the Log is. The signer fills in the rest.
func (l *Log) Head() *systemv1.ChangesHead {
	last, hash := l.Last()
	head := &systemv1.ChangesHead{LastNumber: last, LastHash: hash[:], AnchorHash: slices.Clone(l.anchor[:])}
	if len(l.entries) > 0 {
		head.FirstNumber = l.before + 1
	}
	return head
}

// Sign signs a head with K_state.
func Sign(head *systemv1.ChangesHead, seed posture.StateSeed) ([]byte, error) {
	b, err := proto.Marshal(head)
	if err != nil {
		return nil, reason.Errorf("sign the head of the log of changes: %w", err)
	}
	return posture.Seal(labelHead, b, seed), nil
}

// Parse reads an entry strictly: a field that is unknown, a text that is too long or that
// no line can show, a word that is none: all are refused.
func Parse(b []byte) (*systemv1.ChangeEntry, error) {
	if len(b) > MaxEntrySize {
		return nil, reason.Errorf("an entry has %d bytes, more than %d: %w", len(b), MaxEntrySize, ErrDamaged)
	}
	e := &systemv1.ChangeEntry{}
	if err := proto.Unmarshal(b, e); err != nil {
		return nil, reason.Errorf("an entry cannot be read: %w: %w", ErrDamaged, err)
	}
	if err := posture.RefuseUnknown(e); err != nil {
		return nil, reason.Errorf("entry %d: %w: %w", e.GetNumber(), ErrDamaged, err)
	}
	for _, check := range entryChecks {
		if !check.holds(e) {
			return nil, reason.Errorf("entry %d: its %s cannot be: %w", e.GetNumber(), check.name, ErrDamaged)
		}
	}
	return e, nil
}

var entryChecks = []struct {
	name  string
	holds func(*systemv1.ChangeEntry) bool
}{
	{"number", func(e *systemv1.ChangeEntry) bool { return e.GetNumber() > 0 }},
	{"previous hash", func(e *systemv1.ChangeEntry) bool { return len(e.GetPreviousHash()) == len(Hash{}) }},
	{"actor", func(e *systemv1.ChangeEntry) bool {
		return e.GetActor() > systemv1.ChangeEntry_ACTOR_UNSPECIFIED && e.GetActor() <= systemv1.ChangeEntry_ACTOR_BASE
	}},
	{"App", func(e *systemv1.ChangeEntry) bool { return e.GetAppId() == "" || IsAppID(e.GetAppId()) }},
	{"signing key", func(e *systemv1.ChangeEntry) bool {
		return len(e.GetSigningKey()) == 0 || len(e.GetSigningKey()) == len(posture.SigningKey{})
	}},
	{"word", func(e *systemv1.ChangeEntry) bool { return isWord(e.GetWhat()) }},
	{"name", func(e *systemv1.ChangeEntry) bool { return isLine(e.GetAppName(), MaxName) }},
	{"detail", func(e *systemv1.ChangeEntry) bool { return isLine(e.GetDetail(), MaxDetail) }},
	{"failure", func(e *systemv1.ChangeEntry) bool { return isLine(e.GetFailure(), MaxFailure) }},
}

// IsAppID tells whether an id is one of a pairing: 16 hexadecimal digits.
func IsAppID(id string) bool {
	return len(id) == 16 && strings.Trim(id, "0123456789abcdef") == ""
}

// maxWord is how long a word is, in bytes.
const maxWord = 32

// isWord takes words that a later version has made up, too: an App that is older than its
// Base shows them as they are.
func isWord(word string) bool {
	return word != "" && len(word) <= maxWord && strings.Trim(word, "abcdefghijklmnopqrstuvwxyz-") == ""
}

// Line makes a text one line of limited length, in bytes, that shows nothing but itself: no
// control characters, nothing that changes the direction of text.
func Line(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if shows(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(text, "?"))
	text = strings.TrimSpace(text)
	if len(text) <= most {
		return text
	}
	const cut = "…"
	text = text[:most-len(cut)]
	for !utf8.ValidString(text) {
		text = text[:len(text)-1]
	}
	return text + cut
}

func isLine(text string, most int) bool {
	return len(text) <= most && utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !shows(r) })
}

func shows(r rune) bool { return unicode.IsPrint(r) }
