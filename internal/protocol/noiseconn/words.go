package noiseconn

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const wordsLabel = "bitbox-base words v1"

// WordsSize is the length of Words in bytes: 96 bits, of which nobody finds two equal
// ones by trying.
const WordsSize = 12

// Words are the long code of a pairing whose Base has no display: it crosses the
// Base's Middleware on its way to the authority, so it must be too long to be guessed
// or ground. Like the six digits it is made of the whole ceremony.
type Words [WordsSize]byte

// ComputeWords returns the words of a ceremony: HKDF(r_A | r_B, salt, label)[:12],
// with the salt of Code. h is the final handshake hash. It fails for keys of a wrong
// length.
func ComputeWords(ra, rb, h [32]byte, sign, state ed25519.PublicKey, role byte) (Words, error) {
	salt, err := codeSalt(h, sign, state, role)
	if err != nil {
		return Words{}, reason.Errorf("compute the words: %w", err)
	}
	k, err := hkdf.Key(sha256.New, slices.Concat(ra[:], rb[:]), salt[:], wordsLabel, WordsSize)
	if err != nil {
		return Words{}, reason.Errorf("compute the words: %w", err)
	}
	return Words(k), nil
}

// Equal compares in constant time.
func (w Words) Equal(other []byte) bool { return subtle.ConstantTimeCompare(w[:], other) == 1 }

// A word is 16 bits as a proquint (https://arxiv.org/html/0901.4016): consonant (4
// bits), vowel (2), consonant, vowel, consonant.
const (
	consonants = "bdfghjklmnprstvz"
	vowels     = "aiou"
	wordSize   = 5 // letters
	wordCount  = WordsSize / 2
)

// String writes the words as people read them: "lusab-babad-gutih-tugad-gutuk-bisog".
func (w Words) String() string {
	words := make([]string, wordCount)
	for i := range words {
		n := binary.BigEndian.Uint16(w[2*i:])
		words[i] = string([]byte{
			consonants[n>>12], vowels[n>>10&3], consonants[n>>6&15], vowels[n>>4&3], consonants[n&15],
		})
	}
	return strings.Join(words, "-")
}

// ErrWords: a text is not six words.
var ErrWords = reason.New("there must be six words of five letters each, such as lusab-babad-gutih-tugad-gutuk-bisog")

// ParseWords reads what String writes. Capitals, and spaces or hyphens anywhere, do not
// matter; everything else does.
func ParseWords(text string) (Words, error) {
	letters := strings.Map(func(r rune) rune {
		switch r {
		case ' ', '\t', '-', '‐', '‑', '–', '—':
			return -1
		}
		return r
	}, strings.ToLower(text))
	if len(letters) != wordCount*wordSize {
		return Words{}, reason.Errorf("%w: %d letters came, not %d", ErrWords, len(letters), wordCount*wordSize)
	}
	var w Words
	for i := range wordCount {
		word := letters[i*wordSize:][:wordSize]
		var n uint16
		for at, bits := range [wordSize]int{4, 2, 4, 2, 4} {
			alphabet := consonants
			if bits == 2 {
				alphabet = vowels
			}
			index := strings.IndexByte(alphabet, word[at])
			if index < 0 {
				return Words{}, reason.Errorf("%w: word %d is not one of these words", ErrWords, i+1)
			}
			n = n<<bits | uint16(index)
		}
		binary.BigEndian.PutUint16(w[2*i:], n)
	}
	return w, nil
}
