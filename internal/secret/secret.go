// Package secret holds 32-byte keys that cannot be printed, logged or marshalled by accident.
//
// [Key] has a type parameter whose only purpose is to give each kind of key its own type, so
// that a pairing key cannot be passed as a static key:
//
//	type staticKind struct{}
//	type StaticKey = secret.Key[staticKind]
//
// The bytes are stored behind a function. This matters, because package fmt prints unexported
// fields of an enclosing struct by reflection, without calling their String method. It would
// print an array, and it even follows a pointer to one if the verb does not fit (%s). Nothing
// looks inside a function value.
package secret

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Size is the length of every Key in bytes.
const Size = 32

// ErrMarshal is returned by every marshalling method of a Key. Code that has to store or send a
// key uses Expose.
var ErrMarshal = reason.New("a secret key refuses to be marshalled; use Expose where it must leave the process")

const redacted = "[secret]"

// Key is a secret of 32 bytes. The zero Key is empty. Copies of a Key share their bytes, so Wipe
// empties all of them.
type Key[Kind any] struct {
	array func() *[Size]byte // nil: empty
}

// New copies b, which must be exactly 32 bytes long and not all zero.
func New[Kind any](b []byte) (Key[Kind], error) {
	if len(b) != Size {
		return Key[Kind]{}, reason.Errorf("a secret key has %d bytes, not %d", Size, len(b))
	}
	var zero [Size]byte
	if subtle.ConstantTimeCompare(b, zero[:]) == 1 {
		return Key[Kind]{}, reason.New("32 zero bytes are not a secret key")
	}
	array := [Size]byte(b)
	return Key[Kind]{array: func() *[Size]byte { return &array }}, nil
}

// Generate reads a new Key from random; nil means the system's generator.
func Generate[Kind any](random io.Reader) (Key[Kind], error) {
	if random == nil {
		random = rand.Reader
	}
	var b [Size]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return Key[Kind]{}, reason.Errorf("read %d random bytes for a key: %w", Size, err)
	}
	defer clear(b[:])
	return New[Kind](b[:])
}

// Expose returns the bytes themselves, not a copy; nil for an empty Key. Each call is a place
// where a secret leaves its type, and is easy to search for.
func (k Key[Kind]) Expose() []byte {
	if k.array == nil {
		return nil
	}
	return k.array()[:]
}

// Empty tells whether the Key was never set.
func (k Key[Kind]) Empty() bool { return k.array == nil }

// Equal compares in constant time. An empty Key equals nothing.
func (k Key[Kind]) Equal(other Key[Kind]) bool {
	if k.Empty() || other.Empty() {
		return false
	}
	return subtle.ConstantTimeCompare(k.Expose(), other.Expose()) == 1
}

// Wipe overwrites the bytes in all copies of the Key. This is best effort: Go's runtime may have
// moved them before.
func (k Key[Kind]) Wipe() { clear(k.Expose()) }

// Format prints "[secret]" for every verb, including %x and %#v.
func (k Key[Kind]) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String returns "[secret]".
func (k Key[Kind]) String() string { return redacted }

// LogValue makes package log/slog print "[secret]".
func (k Key[Kind]) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns ErrMarshal.
func (k Key[Kind]) MarshalText() ([]byte, error) { return nil, ErrMarshal }

// MarshalJSON returns ErrMarshal.
func (k Key[Kind]) MarshalJSON() ([]byte, error) { return nil, ErrMarshal }

// MarshalBinary returns ErrMarshal.
func (k Key[Kind]) MarshalBinary() ([]byte, error) { return nil, ErrMarshal }

// GobEncode returns ErrMarshal.
func (k Key[Kind]) GobEncode() ([]byte, error) { return nil, ErrMarshal }
