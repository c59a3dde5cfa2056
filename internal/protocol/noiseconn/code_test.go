package noiseconn

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
)

// referenceCode is the code once more, from the specification.
func referenceCode(ra, rb, h [32]byte, sign, state []byte, role byte) uint32 {
	salt := sha256.Sum256(slices.Concat([]byte("bitbox-base sas salt v1"), h[:], sign, state, []byte{role}))
	k := must(hkdf.Key(sha256.New, slices.Concat(ra[:], rb[:]), salt[:], "bitbox-base sas v1", 32))
	for i := range 8 {
		if n := binary.BigEndian.Uint32(k[4*i:]); n < 4_294_000_000 {
			return n % 1_000_000
		}
	}
	panic("2^-97")
}

func TestTheCodeIsAsSpecified(t *testing.T) {
	for i := range 200 {
		name := fmt.Sprint("code ", i)
		ra, rb, h := [32]byte(fixed(name+"ra", 32)), [32]byte(fixed(name+"rb", 32)), [32]byte(fixed(name+"h", 32))
		sign, state := fixed(name+"sign", 32), fixed(name+"state", 32)
		code, err := Code(ra, rb, h, sign, state, byte(i))
		if want := referenceCode(ra, rb, h, sign, state, byte(i)); code != want || err != nil {
			t.Fatalf("%d, %v; expected %d", code, err, want)
		}
		short, err := CodeDigits(ra, rb, h, sign, state, byte(i), 100)
		if short != code%100 || err != nil {
			t.Fatalf("the short code is %d, %v", short, err)
		}
	}
}

// Whatever the two people have to agree on changes the code.
func TestTheCodeCoversEverything(t *testing.T) {
	type input struct {
		ra, rb, h   [32]byte
		sign, state [32]byte
		role        byte
	}
	compute := func(in input) [8]uint32 {
		// Several moduli near 2^32 show nearly the whole number.
		var out [8]uint32
		for i := range out {
			out[i] = must(CodeDigits(in.ra, in.rb, in.h, in.sign[:], in.state[:], in.role, 4_294_000_000-uint32(i)))
		}
		return out
	}
	original := compute(input{})
	for bit := range 5*256 + 8 {
		var in input
		switch field := bit / 256; field {
		case 5:
			in.role ^= 1 << (bit % 8)
		default:
			fields := []*[32]byte{&in.ra, &in.rb, &in.h, &in.sign, &in.state}
			fields[field][bit%256/8] ^= 1 << (bit % 8)
		}
		if compute(in) == original {
			t.Fatalf("bit %d does not change the code", bit)
		}
	}
}

// The Base must commit to its part of the code before the App reveals.
func TestTheCommitmentCoversWhatTheBasePutsIntoTheCode(t *testing.T) {
	original := Commit([32]byte{}, make([]byte, 32), 0)
	for bit := range 2*256 + 8 {
		var b [65]byte
		b[bit/8] ^= 1 << (bit % 8)
		if Commit([32]byte(b[:32]), b[32:64], b[64]) == original {
			t.Fatalf("bit %d does not change the commitment", bit)
		}
	}
}

func TestNumbersFrom4294000000OnAreNotUsed(t *testing.T) {
	numbers := func(n ...uint32) (k []byte) {
		for _, n := range n {
			k = binary.BigEndian.AppendUint32(k, n)
		}
		return k
	}
	const limit = 4_294_000_000
	for _, test := range []struct {
		k    []byte
		want uint32
	}{
		{numbers(0, 5), 0},
		{numbers(limit-1, 5), 999_999},
		{numbers(limit, 5), 5},
		{numbers(1<<32-1, limit, 1_000_007), 7},
		{numbers(limit, limit, limit, limit, limit, limit, limit, 123_456), 123_456},
	} {
		if got, err := pickCode(test.k, CodeModulus); got != test.want || err != nil {
			t.Errorf("%x: %d, %v; expected %d", test.k, got, err, test.want)
		}
	}
	all := numbers(limit, limit, limit, limit, limit, limit, limit, 1<<32-1)
	if _, err := pickCode(all, CodeModulus); !errors.Is(err, errNoCode) {
		t.Errorf("no usable number: %v", err)
	}
	if limit%CodeModulus != 0 || 1<<32-limit >= CodeModulus {
		t.Error("the limit is not the largest multiple")
	}
}

func TestACodeNeedsWholeKeys(t *testing.T) {
	var zero [32]byte
	whole := make(ed25519.PublicKey, 32)
	for _, key := range []ed25519.PublicKey{nil, whole[:31], make([]byte, 33)} {
		if _, err := Code(zero, zero, zero, key, whole, 1); err == nil {
			t.Errorf("a signing key of %d bytes was taken", len(key))
		}
		if _, err := Code(zero, zero, zero, whole, key, 1); err == nil {
			t.Errorf("a state key of %d bytes was taken", len(key))
		}
	}
	if _, err := CodeDigits(zero, zero, zero, whole, whole, 1, 0); err == nil {
		t.Error("a modulus of zero was taken")
	}
}

func TestNumbersAreShownInTwoGroups(t *testing.T) {
	for n, want := range map[uint32]string{0: "000 000", 7: "000 007", 12_345: "012 345", 123_456: "123 456", 999_999: "999 999"} {
		if got := FormatNumber(n); got != want {
			t.Errorf("%d is shown as %q", n, got)
		}
	}
}

func TestRequestNumberAndCommitmentAreAsSpecified(t *testing.T) {
	p1 := fixedSecrets("pairing").pairInitiator().P1()
	digest := sha256.Sum256(append([]byte("bitbox-base request v1"), p1...))
	if got, want := RequestNumber(p1), binary.BigEndian.Uint32(digest[:4])%1_000_000; got != want {
		t.Errorf("the request number is %d, expected %d", got, want)
	}
	rb, state := [32]byte(fixed("r_B", 32)), fixed("K_state", 32)
	want := sha256.Sum256(slices.Concat([]byte("bitbox-base commit v1"), rb[:], state, []byte{3}))
	if got := Commit(rb, state, 3); got != want {
		t.Errorf("the commitment is %x, expected %x", got, want)
	}
	h, ra, sign := [32]byte(fixed("h", 32)), [32]byte(fixed("r_A", 32)), fixed("K_sign", 32)
	equal(t, "the message to sign", EnrolMessage(h, sign, ra, rb),
		slices.Concat([]byte("bitbox-base enrol v1"), h[:], sign, ra[:], rb[:]))
}
