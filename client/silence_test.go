package client

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A Base was reset and does not know this App. The owner has forgotten about the App, and it
// keeps trying.
func TestAnAppTriesASilentBaseThreeTimesInTenMinutes(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	now := time.Now()
	a.now = func() time.Time { return now }
	a.timing.lateness = 0
	mustPair(t, a, b)
	a.timing.handshake = 200 * time.Millisecond // in vain
	address := b.address()
	b.off()
	var heard atomic.Int32
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if n, _ := io.Copy(io.Discard, conn); n > 0 {
					heard.Add(1)
				}
			}()
		}
	}()
	call := func() error { return getInfo(t, open(t, a)) }
	for range MaxSilences {
		wantKind(t, call(), ErrSilent)
	}
	eventually(t, "the handshakes are heard", func() bool { return heard.Load() == MaxSilences })
	for range 3 { // each in its own session, as the command does it
		if err := call(); !errors.Is(err, ErrSilent) || !strings.Contains(Explain(err), "try again at") {
			t.Errorf("one more: %s", Explain(err))
		}
	}
	now = now.Add(SilenceWindow - time.Second)
	wantKind(t, call(), ErrSilent)
	if n := heard.Load(); n != MaxSilences {
		t.Errorf("the Base heard %d handshakes within the window", n)
	}
	now = now.Add(time.Second)
	wantKind(t, call(), ErrSilent)
	eventually(t, "it is tried again after the window", func() bool { return heard.Load() == MaxSilences+1 })

	// A Base that has answered is not silent: earlier silences do not count.
	listener.Close()
	b.listen(address)
	if err := call(); err != nil {
		t.Fatal(err)
	}
	times, err := a.store.silences(bases(t, a)[0].AppID, address)
	if err != nil || times != nil {
		t.Errorf("still remembered: %v, %v", times, err)
	}
}

// A restarting Base ends connections early; that is no reason to wait.
func TestAConnectionThatEndsEarlyIsNoSilence(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	mustPair(t, a, b)
	address := b.address()
	b.off()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	for range MaxSilences + 1 {
		wantKind(t, getInfo(t, open(t, a)), ErrSilent)
	}
	listener.Close()
	b.listen(address)
	if err := getInfo(t, open(t, a)); err != nil {
		t.Error(err)
	}
}
