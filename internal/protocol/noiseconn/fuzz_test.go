package noiseconn

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
)

// Each parser of bytes from the wire has a fuzz target. The seeds are a right
// message and neighbours of it; the rest grows in the cache of the go command.

// addAround adds a right message and some that are nearly right.
func addAround(f *testing.F, right []byte) {
	f.Helper()
	f.Add(right)
	f.Add([]byte{})
	f.Add(right[:len(right)-1])
	f.Add(append(slices.Clone(right), 0))
	f.Add(make([]byte, len(right)))
	f.Add(bytes.Repeat([]byte{0xff}, len(right)))
	for _, at := range []int{0, len(right) / 2, len(right) - 1} {
		changed := slices.Clone(right)
		changed[at] ^= 0x40
		f.Add(changed)
	}
}

func FuzzReadFrame(f *testing.F) {
	for _, frame := range []struct {
		typ  byte
		size int
	}{{TypePair, P1Size}, {TypePair, P2Size}, {TypePair, P3Size}, {TypeConnect, R1Size}, {TypeConnect, R2Size}, {TypeClaim, ClaimSize}} {
		addAround(f, append(frameHeader(frame.typ, frame.size), make([]byte, frame.size)...))
	}
	f.Add([]byte("GET / HTTP/1.1\r\nHost: base\r\n\r\n"))
	f.Add([]byte("SSH-2.0-OpenSSH_9.2\r\n"))
	f.Add([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3})
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := bytes.NewReader(stream)
		typ, body, err := ReadFrame(r)
		read := len(stream) - r.Len()
		if err != nil {
			if errors.Is(err, ErrFrame) && read != FrameHeaderSize {
				t.Errorf("%d bytes of a forbidden frame were read", read)
			}
			return
		}
		if !FrameSizeAllowed(typ, len(body)) || read != FrameHeaderSize+len(body) {
			t.Errorf("a frame of type %d with %d bytes, %d read", typ, len(body), read)
		}
		var again bytes.Buffer
		if err := WriteFrame(&again, typ, body); err != nil || !bytes.Equal(again.Bytes(), stream[:read]) {
			t.Errorf("written again: %x, %v", again.Bytes(), err)
		}
	})
}

// Anybody can make a P1, so an accepted one must only be answered in form.
func FuzzP1(f *testing.F) {
	s := fixedSecrets("pairing")
	addAround(f, s.pairInitiator().P1())
	f.Fuzz(func(t *testing.T, p1 []byte) {
		base, err := s.pairResponder(p1)
		if err != nil {
			return
		}
		if p2, err := base.WriteP2([32]byte{}); err == nil && len(p2) != P2Size {
			t.Errorf("P2 has %d bytes", len(p2))
		}
	})
}

// From here on there is one right message, and no other is accepted.
func FuzzP2(f *testing.F) {
	s := fixedSecrets("pairing")
	right := referencePair(s, make([]byte, 32), must(testPayload().Marshal()), rightPSK).p2
	addAround(f, right)
	f.Fuzz(func(t *testing.T, p2 []byte) {
		if _, err := s.pairInitiator().ReadP2(p2); (err == nil) != bytes.Equal(p2, right) {
			t.Errorf("%x: %v", p2, err)
		}
	})
}

func FuzzP3(f *testing.F) {
	s := fixedSecrets("pairing")
	messages := referencePair(s, make([]byte, 32), must(testPayload().Marshal()), rightPSK)
	addAround(f, messages.p3)
	f.Fuzz(func(t *testing.T, p3 []byte) {
		base := must(s.pairResponder(messages.p1))
		must(base.WriteP2([32]byte{}))
		_, transport, err := base.ReadP3(p3)
		if accepted := err == nil; accepted != bytes.Equal(p3, messages.p3) || accepted != (transport != nil) {
			t.Errorf("%x: %v", p3, err)
		}
	})
}

func FuzzR1(f *testing.F) {
	s := fixedSecrets("connecting")
	right := s.connectInitiator(1).R1()
	addAround(f, right)
	f.Fuzz(func(t *testing.T, r1 []byte) {
		if _, err := s.connectResponder(r1); (err == nil) != bytes.Equal(r1, right) {
			t.Errorf("%x: %v", r1, err)
		}
		// Past mac1, as far as a thief of K_pair gets.
		if len(r1) < mac1Size {
			return
		}
		base, err := readR1(nil, s.base(), s.pairKey(), r1[mac1Size:])
		if err == nil && base.Peer() == must(PublicOf(s.app())) && !bytes.Equal(r1[mac1Size:], right[mac1Size:]) {
			t.Errorf("%x passes for the App's", r1)
		}
	})
}

func FuzzR2(f *testing.F) {
	s := fixedSecrets("connecting")
	ok, revoked := referenceConnect(s, 1, 0, rightPSK).r2, referenceConnect(s, 1, 1, rightPSK).r2
	addAround(f, ok)
	addAround(f, revoked)
	f.Fuzz(func(t *testing.T, r2 []byte) {
		status, transport, err := s.connectInitiator(1).ReadR2(r2)
		isOK, isRevoked := bytes.Equal(r2, ok), bytes.Equal(r2, revoked)
		if (err == nil) != (isOK || isRevoked) || (transport != nil) != isOK || (status == StatusRevoked) != isRevoked {
			t.Errorf("%x: %d, %v", r2, status, err)
		}
	})
}

// Whatever arrives, only a beginning of what was sent comes out, and the stream
// ends well only if all of it came.
func FuzzRecords(f *testing.F) {
	_, _, toApp := fixedSession()
	texts := []string{"one", "two", string(bytes.Repeat([]byte("three"), 1000))}
	right := stream(toApp, append(texts, "")...)
	var whole []byte
	for _, text := range texts {
		whole = append(whole, text...)
	}
	addAround(f, right)
	f.Add(stream(toApp, ""))
	f.Add(append(right, right...))
	f.Add([]byte{0, 15})
	f.Add([]byte{0x40, 0x11})
	f.Fuzz(func(t *testing.T, wire []byte) {
		conn, _ := receive(wire)
		got, err := io.ReadAll(conn)
		if !bytes.HasPrefix(whole, got) {
			t.Errorf("%q came out", got)
		}
		closed := bytes.Equal(wire, right) || bytes.Equal(wire, stream(toApp, ""))
		if (err == nil) != closed {
			t.Errorf("the end: %v", err)
		}
	})
}

func FuzzP3Payload(f *testing.F) {
	right := must(testPayload().Marshal())
	addAround(f, right)
	for _, field := range wrongNameFields() {
		f.Add(slices.Concat(right[:64], field))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		payload, err := ParseP3Payload(b)
		if err != nil {
			return
		}
		if again, err := payload.Marshal(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("written again: %x, %v", again, err)
		}
	})
}

func FuzzP4(f *testing.F) {
	right := must(testP4().Marshal())
	addAround(f, right)
	for _, field := range wrongNameFields() {
		f.Add(slices.Concat(right[:65], field))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p4, err := ParseP4(b)
		if err != nil {
			return
		}
		if again, err := p4.Marshal(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("written again: %x, %v", again, err)
		}
	})
}

func FuzzAppConfirm(f *testing.F) {
	addAround(f, must(MarshalAppConfirm(fixed("signature", 64))))
	addAround(f, MarshalReject())
	f.Fuzz(func(t *testing.T, record []byte) {
		signature, err := ParseAppConfirm(record)
		if errors.Is(err, ErrRejected) != bytes.Equal(record, MarshalReject()) {
			t.Errorf("%x: %v", record, err)
		}
		if err != nil {
			return
		}
		if again, err := MarshalAppConfirm(signature); err != nil || !bytes.Equal(again, record) {
			t.Errorf("written again: %x, %v", again, err)
		}
	})
}

func FuzzBaseConfirm(f *testing.F) {
	addAround(f, must(MarshalBaseConfirm(must(ParsePairKey(fixed("K_pair", 32))), must(ParseDiscoveryKey(fixed("K_disc", 32))))))
	addAround(f, MarshalReject())
	f.Fuzz(func(t *testing.T, record []byte) {
		pair, discovery, err := ParseBaseConfirm(record)
		if errors.Is(err, ErrRejected) != bytes.Equal(record, MarshalReject()) {
			t.Errorf("%x: %v", record, err)
		}
		if err != nil {
			return
		}
		if again, err := MarshalBaseConfirm(pair, discovery); err != nil || !bytes.Equal(again, record) {
			t.Errorf("written again: %x, %v", again, err)
		}
	})
}

// A name that passes can be shown on a terminal and written to a log.
func FuzzName(f *testing.F) {
	for _, name := range []string{"Base", "", "a\x1b[31m", "a\u202eb", "\xff", "书斋", "🏠", "a\u200db", " ", "a\nb"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if CheckName(name) != nil {
			return
		}
		for _, r := range name {
			if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e ||
				r >= 0x2060 && r <= 0x206f || r == 0xfeff || r == 0xfffe || r == 0xffff {
				t.Errorf("%q passes", name)
			}
		}
		field, err := appendName(nil, name)
		if err != nil || len(field) != nameFieldSize {
			t.Fatalf("%q passes and cannot be written: %v", name, err)
		}
		if read, err := parseName(field); read != name || err != nil {
			t.Errorf("%q is read back as %q, %v", name, read, err)
		}
	})
}
