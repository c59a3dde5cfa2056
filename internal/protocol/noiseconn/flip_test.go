package noiseconn

import (
	"crypto/mlkem"
	"slices"
	"sync"
	"testing"
)

// Whatever single bit of a handshake message changes on its way, the side that
// reads it refuses, so that it is never the case that both sides are done. (Of
// P3 and R2 the writer is done before they are read; it is then alone.)

// flipsAccepted changes each bit of message in turn and returns those bits whose
// change the reader did not notice.
func flipsAccepted(message []byte, accepts func([]byte) bool) (accepted []int) {
	stride := 1
	if underRace {
		stride = 17
	}
	var (
		mu   sync.Mutex
		wait sync.WaitGroup
	)
	const workers = 4
	for worker := range workers {
		wait.Go(func() {
			for bit := worker * stride; bit < 8*len(message); bit += workers * stride {
				changed := slices.Clone(message)
				changed[bit/8] ^= 1 << (bit % 8)
				if accepts(changed) {
					mu.Lock()
					accepted = append(accepted, bit)
					mu.Unlock()
				}
			}
		})
	}
	wait.Wait()
	return accepted
}

func TestEveryFlippedBitOfAHandshakeIsRefused(t *testing.T) {
	pairing, connecting := fixedSecrets("pairing"), fixedSecrets("connecting")
	commitment := [32]byte{1}
	p := referencePair(pairing, commitment[:], must(testPayload().Marshal()), rightPSK)
	c := referenceConnect(connecting, 1, 0, rightPSK)
	for _, message := range []struct {
		name    string
		bytes   []byte
		accepts func([]byte) bool
	}{
		{"P1", p.p1, func(b []byte) bool {
			_, err := pairing.pairResponder(b)
			return err == nil
		}},
		{"P2", p.p2, func(b []byte) bool {
			_, err := pairing.pairInitiator().ReadP2(b)
			return err == nil
		}},
		{"P3", p.p3, func(b []byte) bool {
			base := must(pairing.pairResponder(p.p1))
			must(base.WriteP2(commitment))
			_, _, err := base.ReadP3(b)
			return err == nil
		}},
		{"R1", c.r1, func(b []byte) bool {
			_, err := connecting.connectResponder(b)
			return err == nil
		}},
		// The same from somebody who can compute mac1: a thief of K_pair alone.
		{"R1 with a new mac1", c.r1[mac1Size:], func(b []byte) bool {
			_, err := connecting.connectResponder(slices.Concat(referenceMAC1(connecting.pair, b), b))
			return err == nil
		}},
		{"R2", c.r2, func(b []byte) bool {
			_, _, err := connecting.connectInitiator(1).ReadR2(b)
			return err == nil
		}},
	} {
		t.Run(message.name, func(t *testing.T) {
			if !message.accepts(message.bytes) {
				t.Fatal("the message itself is refused, so this test shows nothing")
			}
			if accepted := flipsAccepted(message.bytes, message.accepts); accepted != nil {
				t.Errorf("%d flipped bits were not noticed, among them bit %d", len(accepted), accepted[0])
			}
		})
	}
}

// The same search finds the bits that two broken variants do not cover.
func TestTheSearchForFlippedBitsFindsAGap(t *testing.T) {
	s := fixedSecrets("connecting")
	c := referenceConnect(s, 1, 0, rightPSK)

	// A Base that does not check mac1 under its own key: Noise does not cover mac1.
	unchecked := flipsAccepted(c.r1[:mac1Size], func(mac []byte) bool {
		_, err := readR1(nil, s.base(), s.pairKey(), slices.Concat(mac, c.r1[mac1Size:])[mac1Size:])
		return err == nil
	})
	// A psk of K_pair alone: the KEM's ciphertext then stands outside.
	withoutKEM := referenceConnect(s, 1, 0, func([]byte) []byte { return s.pair })
	uncovered := flipsAccepted(withoutKEM.r2[:128], func(ct []byte) bool {
		ek, _, _ := s.kem()
		app := must(newHandshake(connectSuite, true, s.ephemeralOnly(), s.app(), s.basePub().bytes()))
		must(app.write(nil, append(ek, 0, 0, 0, 0, 0, 0, 0, 1)))
		if err := app.setPSK(s.pair); err != nil {
			t.Error(err)
		}
		r2 := slices.Concat(ct, withoutKEM.r2[128:])
		_, err := app.read(r2[mlkem.CiphertextSize768:], R2Size-mlkem.CiphertextSize768)
		return err == nil
	})
	if !underRace && (len(unchecked) != 8*mac1Size || len(uncovered) != 8*128) {
		t.Errorf("found %d of %d, and %d of %d", len(unchecked), 8*mac1Size, len(uncovered), 8*128)
	}
	if len(unchecked) == 0 || len(uncovered) == 0 {
		t.Error("found nothing")
	}
}
