package announcement

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func example(seed byte) TXT {
	return TXT{
		Version: 1,
		Nonce:   [NonceSize]byte(bytes.Repeat([]byte{seed}, NonceSize)),
		ID:      [IDSize]byte(bytes.Repeat([]byte{^seed}, IDSize)),
	}
}

func TestTXTRoundTrip(t *testing.T) {
	for _, open := range []bool{true, false} {
		want := example(9)
		want.PairingOpen = open
		got, err := Parse(append(want.Strings(), "future=1", "flag"))
		if err != nil || got != want {
			t.Errorf("%+v became %+v: %v", want, got, err)
		}
	}
}

func TestTXTIsReadStrictly(t *testing.T) {
	good := example(0xab).Strings()
	replace := func(n int, s string) []string { c := slices.Clone(good); c[n] = s; return c }
	for what, record := range map[string][]string{
		"empty":            {},
		"a key twice":      append(slices.Clone(good), "v=1"),
		"an unknown twice": append(slices.Clone(good), "x=1", "x=2"),
		"too many":         append(slices.Clone(good), make([]string, maxTXTStrings)...),
		"too long":         append(slices.Clone(good), "x="+strings.Repeat("y", maxTXTBytes)),
		"no version":       good[1:],
		"version 0":        replace(0, "v=0"),
		"version 01":       replace(0, "v=01"),
		"version 256":      replace(0, "v=256"),
		"version +1":       replace(0, "v=+1"),
		"short nonce":      replace(1, good[1][:len(good[1])-2]),
		"long nonce":       replace(1, good[1]+"00"),
		"upper case":       replace(1, "n="+strings.ToUpper(good[1][2:])),
		"no hexadecimal":   replace(2, "id="+strings.Repeat("g", 16)),
		"pairing maybe":    replace(3, "pairing=maybe"),
		"pairing nothing":  replace(3, "pairing"),
	} {
		if txt, err := Parse(record); err == nil {
			t.Errorf("%s: read as %+v", what, txt)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(strings.Join(example(1).Strings(), "\x00"))
	f.Add("v=1\x00n=\x00id=\x00pairing=open")
	f.Add("")
	f.Fuzz(func(t *testing.T, joined string) {
		txt, err := Parse(strings.Split(joined, "\x00"))
		if err != nil {
			return
		}
		again, err := Parse(txt.Strings())
		if err != nil || again != txt {
			t.Errorf("%+v does not come back: %+v, %v", txt, again, err)
		}
	})
}
