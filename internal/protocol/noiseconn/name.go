package noiseconn

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	// MaxNameSize is the most bytes a name may have, that of an mDNS label.
	MaxNameSize = 63

	// A name on the wire is its length (1) and its bytes, zero padded to 63.
	nameFieldSize = 1 + MaxNameSize
)

// forbidden are the characters a name must not have: controls; what is invisible
// or changes the order of what stands around it (bidirectional marks are in Cf);
// line ends; and private use, which shows anything.
var forbidden = []*unicode.RangeTable{
	unicode.Cc, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp,
	unicode.Other_Default_Ignorable_Code_Point, unicode.Noncharacter_Code_Point, unicode.Variation_Selector,
}

const (
	// Text or emoji: the two variation selectors that may follow what is visible.
	textStyle, emojiStyle = '\uFE0E', '\uFE0F'
	// brailleBlank is a symbol by its category, and shows nothing.
	brailleBlank = '\u2800'
)

// CheckName tells whether a name of a Base or an App may be taken, shown and
// logged: 1 to 63 bytes of valid UTF-8 without control, format, invisible or
// private characters, without space at either end, and with something to see.
// A name from the network must pass it, and stays untrusted text all the same.
func CheckName(name string) error {
	switch {
	case name == "":
		return reason.New("the name is empty; choose one of 1 to 63 bytes")
	case len(name) > MaxNameSize:
		return reason.Errorf("the name has %d bytes; at most %d fit", len(name), MaxNameSize)
	case !utf8.ValidString(name):
		return reason.New("the name is not valid UTF-8")
	case strings.TrimSpace(name) != name:
		return reason.New("the name begins or ends with a space")
	}
	visible, afterVisible := false, false
	for _, r := range name {
		if (r == textStyle || r == emojiStyle) && afterVisible {
			afterVisible = false
			continue
		}
		if unicode.In(r, forbidden...) {
			return reason.Errorf("the name contains the character %U, which is invisible or a control character; leave it out", r)
		}
		afterVisible = r != brailleBlank && unicode.In(r, unicode.L, unicode.N, unicode.P, unicode.S)
		visible = visible || afterVisible
	}
	if !visible {
		return reason.New("the name has no visible character; use letters or numbers")
	}
	return nil
}

func appendName(b []byte, name string) ([]byte, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	var field [nameFieldSize]byte
	field[0] = byte(len(name))
	copy(field[1:], name)
	return append(b, field[:]...), nil
}

// parseName takes a field of nameFieldSize bytes.
func parseName(field []byte) (string, error) {
	length := int(field[0])
	if length > MaxNameSize {
		return "", reason.Errorf("the length of the name is %d; at most %d is possible", length, MaxNameSize)
	}
	for _, b := range field[1+length:] {
		if b != 0 {
			return "", reason.New("the name is not padded with zeros")
		}
	}
	name := string(field[1 : 1+length])
	return name, CheckName(name)
}
