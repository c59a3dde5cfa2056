package noiseconn

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// referenceWords are the words once more, from the specification.
func referenceWords(ra, rb, h [32]byte, sign, state []byte, role byte) string {
	salt := sha256.Sum256(slices.Concat([]byte("bitbox-base sas salt v1"), h[:], sign, state, []byte{role}))
	k := must(hkdf.Key(sha256.New, slices.Concat(ra[:], rb[:]), salt[:], "bitbox-base words v1", 12))
	var words []string
	for i := 0; i < 12; i += 2 {
		n := int(k[i])*256 + int(k[i+1])
		word := ""
		for _, part := range []struct {
			alphabet string
			divisor  int
		}{{"bdfghjklmnprstvz", 4096}, {"aiou", 1024}, {"bdfghjklmnprstvz", 64}, {"aiou", 16}, {"bdfghjklmnprstvz", 1}} {
			word += string(part.alphabet[n/part.divisor%len(part.alphabet)])
		}
		words = append(words, word)
	}
	return strings.Join(words, "-")
}

func TestTheWordsAreAsSpecified(t *testing.T) {
	for i := range 200 {
		name := fmt.Sprint("words ", i)
		ra, rb, h := [32]byte(fixed(name+"ra", 32)), [32]byte(fixed(name+"rb", 32)), [32]byte(fixed(name+"h", 32))
		sign, state := fixed(name+"sign", 32), fixed(name+"state", 32)
		words, err := ComputeWords(ra, rb, h, sign, state, byte(i))
		if want := referenceWords(ra, rb, h, sign, state, byte(i)); words.String() != want || err != nil {
			t.Fatalf("%v, %v; expected %s", words, err, want)
		}
		if back, err := ParseWords(words.String()); back != words || err != nil {
			t.Fatalf("%v reads as %v, %v", words, back, err)
		}
	}
	// The addresses of the paper on proquints: 127.0.0.1, 63.84.220.193, 63.118.7.35.
	known := Words{127, 0, 0, 1, 63, 84, 220, 193, 63, 118, 7, 35}
	if got := known.String(); got != "lusab-babad-gutih-tugad-gutuk-bisog" {
		t.Errorf("%v reads %s", known[:], got)
	}
}

// Whatever the two people have to agree on changes the words.
func TestTheWordsCoverEverything(t *testing.T) {
	compute := func(in [5][32]byte, role byte) Words {
		return must(ComputeWords(in[0], in[1], in[2], in[3][:], in[4][:], role))
	}
	seen := map[Words]int{compute([5][32]byte{}, 0): -1}
	for bit := range 5*256 + 8 {
		var in [5][32]byte
		var role byte
		if field := bit / 256; field < 5 {
			in[field][bit%256/8] = 1 << (bit % 8)
		} else {
			role = 1 << (bit % 8)
		}
		words := compute(in, role)
		if other, again := seen[words]; again {
			t.Errorf("bits %d and %d make the same words", bit, other)
		}
		seen[words] = bit
	}
	if _, err := ComputeWords([32]byte{}, [32]byte{}, [32]byte{}, make([]byte, 31), make([]byte, 32), 1); err == nil {
		t.Error("a key of 31 bytes was taken")
	}
}

func TestWordsAreReadAsPeopleTypeThem(t *testing.T) {
	want := Words{127, 0, 0, 1, 63, 84, 220, 193, 63, 118, 7, 35}
	for _, text := range []string{
		"lusab-babad-gutih-tugad-gutuk-bisog", "LUSAB BABAD GUTIH TUGAD GUTUK BISOG", "  Lusab babad - gutih tugad\tgutuk bisog ",
		"lusabbabadgutihtugadgutukbisog", "lusab‑babad–gutih—tugad-gutuk-bisog",
	} {
		if got, err := ParseWords(text); err != nil || got != want || !got.Equal(want[:]) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "lusab", "lusab-babad-gutih-tugad-gutuk", "lusab-babad-gutih-tugad-gutuk-bisog-lusab", "lusab-babad-gutih-tugad-gutuk-bisoc",
		// a Cyrillic o
		"usabl-babad-gutih-tugad-gutuk-bisog", "lusab.babad.gutih.tugad.gutuk.bisog", "lusab-babad-gutih-tugad-gutuk-biso\x00",
		"lusab-babad-gutih-tugad-gutuk-bisоg",
		"471 835",
	} {
		if got, err := ParseWords(text); !errors.Is(err, ErrWords) {
			t.Errorf("%q: read as %v, %v", text, got, err)
		}
	}
	if want.Equal(want[:11]) || want.Equal(nil) || want.Equal(make([]byte, 12)) {
		t.Error("other words are equal")
	}
}

func FuzzParseWords(f *testing.F) {
	f.Add("lusab-babad-gutih-tugad-gutuk-bisog")
	f.Add("LUSAB babad")
	f.Fuzz(func(t *testing.T, text string) {
		words, err := ParseWords(text)
		if err != nil {
			return
		}
		if again, err := ParseWords(words.String()); again != words || err != nil {
			t.Errorf("%q reads as %v, which reads as %v, %v", text, words, again, err)
		}
	})
}
