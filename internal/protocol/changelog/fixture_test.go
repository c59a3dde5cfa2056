package changelog

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"testing"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
)

var (
	generateSeed func(io.Reader) (posture.StateSeed, error) = secret.Generate
	seed                                                    = must(generateSeed(rand.Reader))
	base                                                    = posture.PublicKey(seed)
	nonce                                                   = bytes.Repeat([]byte{5}, nonceSize)
	epoch                                                   = posture.Epoch{9}
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func draft(what, detail string) *systemv1.ChangeEntry {
	return &systemv1.ChangeEntry{
		Time: 1_800_000_000, Actor: systemv1.ChangeEntry_ACTOR_APP, AppId: "0123456789abcdef", AppName: "Laptop", What: what, Detail: detail,
	}
}

// logOf is a Log with entries of these details.
func logOf(t testing.TB, details ...string) *Log {
	t.Helper()
	l := Restore(0, Hash{})
	for _, detail := range details {
		extend(t, l, detail)
	}
	return l
}

func extend(t testing.TB, l *Log, detail string) {
	t.Helper()
	s, err := l.Next(draft(Service, detail))
	if err == nil {
		err = l.Add(s.Bytes)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func headOf(l *Log) *systemv1.ChangesHead {
	head := l.Head()
	head.BaseId, head.Epoch, head.Nonce = base[:], epoch[:], nonce
	return head
}

// shown is what a Base shows of a Log.
func shown(l *Log) (*systemv1.ChangesHead, [][]byte) {
	var entries [][]byte
	for _, s := range l.entries {
		entries = append(entries, s.Bytes)
	}
	return headOf(l), entries
}

func expecting(memory Memory) Expectation {
	return Expectation{Base: base, Memory: memory, Nonce: nonce}
}

// look verifies with checks and without one of them, if it is named.
func look(without string, memory Memory, head *systemv1.ChangesHead, entries [][]byte) (*View, error) {
	some := []check(nil)
	for _, c := range checks {
		if c.name != without {
			some = append(some, c)
		}
	}
	return verifyWith(some, expecting(memory), head, head, entries)
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}
