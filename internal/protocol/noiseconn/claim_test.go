package noiseconn

import (
	"bytes"
	"crypto/ed25519"
	"testing"
)

// The attack: each bit of the mark, of P1, or of the keys is another one.
func TestAMarkIsGoodForOneP1OfOneApp(t *testing.T) {
	s := must(GenerateClaimSecret(nil))
	public, private, _ := ed25519.GenerateKey(nil)
	p1 := bytes.Repeat([]byte{7}, P1Size)
	mark := must(ClaimMark(s, private, p1))
	if !CheckClaimMark(s, public, mark, p1) {
		t.Fatal("the genuine mark is refused")
	}
	for bit := range 8 * len(mark) {
		other := bytes.Clone(mark)
		other[bit/8] ^= 1 << (bit % 8)
		if CheckClaimMark(s, public, other, p1) {
			t.Errorf("bit %d of the mark does not count", bit)
		}
	}
	otherKey, otherPrivate, _ := ed25519.GenerateKey(nil)
	otherP1 := bytes.Clone(p1)
	otherP1[P1Size-1] ^= 1
	for name, accepted := range map[string]bool{
		"another secret":       CheckClaimMark(must(GenerateClaimSecret(nil)), public, mark, p1),
		"an empty secret":      CheckClaimMark(ClaimSecret{}, public, mark, p1),
		"another App":          CheckClaimMark(s, otherKey, mark, p1),
		"a thief's signature":  CheckClaimMark(s, public, must(ClaimMark(s, otherPrivate, p1)), p1),
		"another P1":           CheckClaimMark(s, public, mark, otherP1),
		"a mark that is short": CheckClaimMark(s, public, mark[:len(mark)-1], p1),
		"no mark":              CheckClaimMark(s, public, nil, p1),
	} {
		if accepted {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A peer without the secret, or a man in the middle, whose handshake is another one, has another
// proof.
func TestTheProofOfAClaimCoversSecretAndCeremony(t *testing.T) {
	s := must(GenerateClaimSecret(nil))
	seen := map[string]int{}
	for bit := range 5*256 + 8 {
		var in [5][32]byte
		var role byte
		if field := bit / 256; field < 5 {
			in[field][bit%256/8] = 1 << (bit % 8)
		} else {
			role = 1 << (bit % 8)
		}
		proof := string(must(ClaimProof(s, in[0], in[1], in[2], in[3][:], in[4][:], role)))
		if other, again := seen[proof]; again {
			t.Errorf("bits %d and %d make the same proof", bit, other)
		}
		seen[proof] = bit
	}
	another := must(ClaimProof(must(GenerateClaimSecret(nil)), [32]byte{}, [32]byte{}, [32]byte{}, make([]byte, 32), make([]byte, 32), 1))
	if _, again := seen[string(another)]; again {
		t.Error("another secret makes the same proof")
	}
	if _, err := ClaimProof(ClaimSecret{}, [32]byte{}, [32]byte{}, [32]byte{}, make([]byte, 32), make([]byte, 32), 1); err == nil {
		t.Error("an empty secret makes a proof")
	}
	if _, err := ClaimProof(s, [32]byte{}, [32]byte{}, [32]byte{}, make([]byte, 31), make([]byte, 32), 1); err == nil {
		t.Error("a key of 31 bytes makes a proof")
	}
}
