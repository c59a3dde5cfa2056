// Package announcement is what a Base tells of itself on the local network: the content of its TXT
// record (docs/protocol.md).
package announcement

import (
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Sizes in bytes, from the wire protocol (docs/protocol.md).
const (
	NonceSize = 16
	IDSize    = 8
)

// The bounds of a TXT record, in strings and in bytes. Ours has 4 strings with 70 bytes; the rest
// is room for keys of later versions, which are ignored.
const (
	maxTXTStrings = 16
	maxTXTBytes   = 512
)

// TXT is the content of the TXT record.
type TXT struct {
	// Version is the version of the wire protocol, at least 1.
	Version uint8
	// Nonce is new at each start of the Base.
	Nonce [NonceSize]byte
	// ID is HMAC-SHA256(K_disc, Nonce), the first 8 bytes (noiseconn.DiscoveryID).
	ID [IDSize]byte
	// PairingOpen tells whether the Base listens for pairing requests.
	PairingOpen bool
}

// Strings returns the strings of the TXT record, "key=value" each.
func (t TXT) Strings() []string {
	pairing := "closed"
	if t.PairingOpen {
		pairing = "open"
	}
	return []string{
		"v=" + strconv.Itoa(int(t.Version)),
		"n=" + hex.EncodeToString(t.Nonce[:]),
		"id=" + hex.EncodeToString(t.ID[:]),
		"pairing=" + pairing,
	}
}

// Parse is the inverse of TXT.Strings. Each of the four keys must occur once, in exactly the
// form that Strings writes; other keys are ignored.
func Parse(record []string) (TXT, error) {
	if len(record) > maxTXTStrings {
		return TXT{}, reason.Errorf("a TXT record has %d strings; at most %d are read", len(record), maxTXTStrings)
	}
	size := 0
	values := map[string]string{}
	for _, s := range record {
		if size += len(s); size > maxTXTBytes {
			return TXT{}, reason.Errorf("a TXT record has more than %d bytes", maxTXTBytes)
		}
		key, value, _ := strings.Cut(s, "=")
		if _, twice := values[key]; twice {
			return TXT{}, reason.New("a TXT record has a key twice")
		}
		values[key] = value
	}

	version, err := strconv.ParseUint(values["v"], 10, 8)
	if err != nil || version == 0 || strconv.FormatUint(version, 10) != values["v"] {
		return TXT{}, reason.New("a TXT record has no v between 1 and 255")
	}
	t := TXT{Version: uint8(version)}
	if !decodeHex(t.Nonce[:], values["n"]) {
		return TXT{}, reason.Errorf("a TXT record has no n of %d bytes in lower-case hexadecimal", NonceSize)
	}
	if !decodeHex(t.ID[:], values["id"]) {
		return TXT{}, reason.Errorf("a TXT record has no id of %d bytes in lower-case hexadecimal", IDSize)
	}
	switch values["pairing"] {
	case "open":
		t.PairingOpen = true
	case "closed":
	default:
		return TXT{}, reason.New(`a TXT record has no pairing that is "open" or "closed"`)
	}
	return t, nil
}

// decodeHex fills out from s, which must have exactly twice its length and no upper-case digit,
// so that each value has only one form.
func decodeHex(out []byte, s string) bool {
	if len(s) != hex.EncodedLen(len(out)) || strings.ToLower(s) != s {
		return false
	}
	_, err := hex.Decode(out, []byte(s))
	return err == nil
}
