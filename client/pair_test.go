package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(leaktest.Checked(m)) }

// bases returns what the App has stored.
func bases(t *testing.T, a *App) []Base {
	t.Helper()
	a.saving.Wait() // a new address is stored in the background
	list, err := a.Bases()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// wantKind fails unless the error is of this kind and has a sentence.
func wantKind(t *testing.T, err, kind error) *Error {
	t.Helper()
	var known *Error
	if !errors.Is(err, kind) || !errors.As(err, &known) {
		t.Fatalf("error %v (%T), want the kind %v", err, err, kind)
	}
	if sentence := Explain(err); sentence == "" || strings.HasSuffix(sentence, ".") || strings.Contains(sentence, "\n") {
		t.Errorf("the sentence is %q", sentence)
	}
	return known
}

func TestBothSidesSeeTheSameCodeAndThenTalk(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	var atBase string
	b.rb = func(p *revealed) []byte { atBase = b.code(p); return b.honestP4(p) }
	var number string
	base, err := a.Pair(t.Context(), []string{b.address()}, PairOptions{
		Requested: func(n string) { number = n },
		Confirm: func(_ context.Context, code Code) (bool, error) {
			if code.Digits != atBase || code.BaseName != "Fake Base" || code.AppName != "Test App" || code.Role != basev1.Role_ROLE_OWNER {
				t.Errorf("the App shows %+v, the Base %s", code, atBase)
			}
			return true, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if base.State != Active || base.Name != "Fake Base" || base.PublicKey != b.public || base.Role != basev1.Role_ROLE_OWNER {
		t.Errorf("paired: %+v", base)
	}
	if want := noiseconn.FormatNumber(noiseconn.RequestNumber(b.p1s[0])); number != want {
		t.Errorf("request number %q, want %q", number, want)
	}
	session, err := a.Open("Fake Base")
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	info, err := session.Info.GetInfo(t.Context(), &basev1.GetInfoRequest{})
	if err != nil || info.GetPublicKey() != hex.EncodeToString(b.public[:]) {
		t.Errorf("info %v, %v", info, err)
	}
	// Whatever shows its addresses shows them as they can be given to pair.
	want := Reachable([]string{"192.0.2.20", "fe80::1"})
	if got := info.GetAddresses(); !slices.Equal(got, want) || want[1] == "fe80::1" {
		t.Errorf("addresses %q, want %q", got, want)
	}
}

func TestFilesOfTheAppArePrivate(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes say nothing on Windows")
	}
	dir := filepath.Join(t.TempDir(), "new")
	a, b := appIn(t, dir), newFakeBase(t)
	mustPair(t, a, b)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		t.Fatal(entries, err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", entry.Name(), info.Mode(), err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v, %v", info.Mode(), err)
	}
}

func TestRequestIsRepeatedUnchangedUntilItIsAccepted(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	var heard atomic.Int32
	b.accept = func([]byte) bool { return heard.Add(1) == 4 }
	mustPair(t, a, b)
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.p1s) < 4 {
		t.Fatalf("heard %d requests", len(b.p1s))
	}
	for _, p1 := range b.p1s {
		if !bytes.Equal(p1, b.p1s[0]) {
			t.Fatal("a request differs from the one before")
		}
	}
	if b.reveals != 1 {
		t.Errorf("%d reveals", b.reveals)
	}
}

func TestEachPairingHasKeysOfItsOwn(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	var all []*revealed
	b.rb = func(p *revealed) []byte { all = append(all, p); return b.honestP4(p) }
	mustPair(t, a, b)
	mustPair(t, a, b)
	if all[0].app == all[1].app || all[0].payload.SigningKey.Equal(all[1].payload.SigningKey) ||
		all[0].payload.RA == all[1].payload.RA || bytes.Equal(b.p1s[0], b.p1s[1]) {
		t.Error("two pairings share a key")
	}
	if list := bases(t, a); len(list) != 2 || list[0].Name == list[1].Name {
		t.Errorf("two active pairings with the same name: %+v", list)
	}
}

func TestGivenUpRequestRevealsNothing(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b.accept = func([]byte) bool { cancel(); return false }
	_, err := a.Pair(ctx, []string{b.address()}, PairOptions{Confirm: sayYes})
	wantKind(t, err, ErrNotAccepted)
	if _, reveals := b.counts(); reveals != 0 || len(bases(t, a)) != 0 {
		t.Errorf("%d reveals, stored %v", reveals, bases(t, a))
	}
	if err := a.store.checkReveals(time.Now()); err != nil {
		t.Error(err)
	}
}

// The answer to a request was lost: no other one comes. The App does not wait for ever.
func TestAnAppGivesUpARequestThatIsNeverAnswered(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	b.accept = func([]byte) bool { return false }
	err := error(ErrUnreachable)
	// A slow machine takes longer until the first request has arrived.
	for a.timing.giveUp = 200 * time.Millisecond; errors.Is(err, ErrUnreachable) && a.timing.giveUp < patience; a.timing.giveUp *= 2 {
		_, err = a.Pair(t.Context(), []string{b.address()}, PairOptions{Confirm: sayYes})
	}
	wantKind(t, err, ErrNotAccepted)
	if _, reveals := b.counts(); reveals != 0 {
		t.Errorf("%d reveals", reveals)
	}
}

// refused runs a pairing that must fail after the App has revealed its half, and checks that only
// the count of it remains.
func refused(t *testing.T, a *App, b *fakeBase, kind error, confirm func(context.Context, Code) (bool, error)) {
	t.Helper()
	_, err := a.Pair(t.Context(), []string{b.address()}, PairOptions{Confirm: confirm})
	wantKind(t, err, kind)
	if !errors.Is(err, ErrInterference) || !strings.Contains(Explain(err), "may have interfered") {
		t.Errorf("it does not say that somebody may have interfered: %v", err)
	}
	if _, reveals := b.counts(); reveals != 1 {
		t.Errorf("%d reveals by one action of the user", reveals)
	}
	if list := bases(t, a); len(list) != 0 {
		t.Errorf("stored %+v", list)
	}
	if err := a.store.addReveal(time.Now()); err != nil {
		t.Error(err)
	}
	if err := a.store.addReveal(time.Now()); err != nil {
		t.Error(err)
	}
	if err := a.store.checkReveals(time.Now()); !errors.Is(err, ErrTooManyReveals) {
		t.Errorf("the failure was not counted: %v", err)
	}
}

// signingKeyNumber is the public key of a seed that starts with n.
func signingKeyNumber(n uint32) ed25519.PublicKey {
	seed := binary.BigEndian.AppendUint32(nil, n)
	return ed25519.NewKeyFromSeed(append(seed, make([]byte, ed25519.SeedSize-len(seed))...)).Public().(ed25519.PublicKey)
}

// neverAsked fails the test if the user sees a code.
func neverAsked(t *testing.T) func(context.Context, Code) (bool, error) {
	return func(_ context.Context, code Code) (bool, error) {
		t.Errorf("the user was shown %+v", code)
		return true, nil
	}
}

func TestWrongCommitmentIsRefusedBeforeTheCodeIsShown(t *testing.T) {
	for what, change := range map[string]func(p *revealed){
		"r_B":     func(p *revealed) { p.rb[0] ^= 1 },
		"K_state": func(p *revealed) { p.stateKey = signingKeyNumber(1) },
		"role":    func(p *revealed) { p.role-- },
	} {
		t.Run(what, func(t *testing.T) {
			a, b := testApp(t), newFakeBase(t)
			b.rb = func(p *revealed) []byte { change(p); return b.honestP4(p) }
			refused(t, a, b, ErrInterference, neverAsked(t))
		})
	}
}

// The commitment forces a man in the middle to choose all his contributions to the code before he
// knows what it depends on. Without it he computes codes until one fits. The same attacker beats
// an App that does not check, and one that checks r_B alone.
func TestCommitmentKeepsAManInTheMiddleFromGrindingTheCode(t *testing.T) {
	const target = "000 042"
	attack := func(opens func([32]byte, *noiseconn.P4) bool, grind func(p *revealed, n uint32)) (shown bool) {
		a, b := testApp(t), newFakeBase(t)
		a.codeModulus, b.modulus = 1000, 1000
		a.opens = opens
		b.rb = func(p *revealed) []byte {
			for n := uint32(0); b.code(p) != target; n++ {
				grind(p, n)
			}
			return b.honestP4(p)
		}
		_, err := a.Pair(t.Context(), []string{b.address()}, PairOptions{Confirm: func(_ context.Context, code Code) (bool, error) {
			shown = code.Digits == target
			return false, nil
		}})
		if !errors.Is(err, ErrInterference) {
			t.Errorf("the pairing ended with %v", err)
		}
		return shown
	}
	var rb [32]byte // of the pairing under way
	grindRB := func(p *revealed, n uint32) { binary.BigEndian.PutUint32(p.rb[:], n) }
	grindState := func(p *revealed, n uint32) {
		rb = p.rb
		p.stateKey = signingKeyNumber(n)
	}
	if attack(opens, grindRB) || attack(opens, grindState) {
		t.Error("the App showed the code of the man in the middle")
	}
	if !attack(func([32]byte, *noiseconn.P4) bool { return true }, grindRB) {
		t.Error("the attack also fails without any check, so it proves nothing")
	}
	if !attack(func(_ [32]byte, p4 *noiseconn.P4) bool { return p4.RB == rb }, grindState) {
		t.Error("the attack also fails with a check of r_B alone, so it proves nothing")
	}
}

// A man in the middle plays the App towards the Base until the Base shows a code, which stays up
// for two minutes. In that time he makes the App start one pairing after the other, and cuts each
// whose code differs. He hopes for an App that retries.
func TestManInTheMiddleWhoHoldsACodeOfTheBaseGetsThreeGuesses(t *testing.T) {
	const modulus, held = 4, "000 001"
	// The user has one App at a time; each starts with an empty memory, in the directory that next gives.
	attack := func(tries int, next func() string) (guesses int, won bool, last error) {
		b := newFakeBase(t)
		b.modulus = modulus
		b.rb = func(p *revealed) []byte {
			if b.code(p) != held {
				return nil // cuts the connection
			}
			return b.honestP4(p)
		}
		for range tries {
			a := appIn(t, next())
			a.codeModulus = modulus
			_, last = a.Pair(t.Context(), []string{b.address()}, PairOptions{Confirm: func(_ context.Context, code Code) (bool, error) {
				won = true // the user sees what the Base shows
				return false, nil
			}})
			if won || errors.Is(last, ErrTooManyReveals) {
				break
			}
		}
		_, guesses = b.counts()
		return guesses, won, last
	}

	one := t.TempDir()
	guesses, won, last := attack(100, func() string { return one })
	if guesses > maxReveals {
		t.Errorf("%d guesses", guesses)
	}
	if !won {
		if known := wantKind(t, last, ErrTooManyReveals); known.Wait < 170*time.Second {
			t.Errorf("the App waits for %v", known.Wait)
		}
	}
	// The same attacker beats an App that does not remember failures, and retries.
	if guesses, won, _ := attack(100, t.TempDir); !won {
		t.Errorf("the attack also fails against an App that retries (%d guesses), so it proves nothing", guesses)
	}
}

func TestPairAloneRevealsOnceAtMost(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	b.rb = func(*revealed) []byte { return nil } // cuts the connection
	refused(t, a, b, ErrInterference, neverAsked(t))
}

func TestAfterThreeFailuresTheAppWaitsEvenAfterARestart(t *testing.T) {
	dir := t.TempDir()
	b := newFakeBase(t)
	var honest atomic.Bool
	b.rb = func(p *revealed) []byte {
		if honest.Load() {
			return b.honestP4(p)
		}
		return nil
	}
	now := time.Now()
	pair := func() error {
		a := appIn(t, dir)
		a.now = func() time.Time { return now }
		_, err := a.Pair(t.Context(), []string{b.address()}, PairOptions{Confirm: sayYes})
		return err
	}
	for range maxReveals {
		wantKind(t, pair(), ErrInterference)
		now = now.Add(10 * time.Second)
	}
	heard, _ := b.counts()
	if known := wantKind(t, pair(), ErrTooManyReveals); known.Wait > revealWait || known.Wait < revealWait-15*time.Second {
		t.Errorf("waits for %v", known.Wait)
	}
	if again, _ := b.counts(); again != heard {
		t.Error("the Base was sent a request that cannot succeed")
	}
	// Setting the clock back does not shorten the wait below what is left.
	now = now.Add(-time.Hour)
	wantKind(t, pair(), ErrTooManyReveals)
	now = now.Add(time.Hour + revealWait)
	honest.Store(true)
	if err := pair(); err != nil {
		t.Errorf("after the wait: %v", err)
	}
}

// The App waits as long as it says, and the wait ends whatever the clock was when the pairings
// failed. A machine's clock is often wrong until the network sets it, and an attacker on the
// network may be the one who sets it.
func TestTheWaitAfterThreeFailuresIsAsLongAsTheAppSays(t *testing.T) {
	failing := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		failures []time.Duration // since the failure
		then     time.Duration   // the clock's change after the last failure
	}{
		"close together":            {[]time.Duration{0, 10 * time.Second, 20 * time.Second}, time.Second},
		"far apart":                 {[]time.Duration{0, 100 * time.Second, 170 * time.Second}, time.Second},
		"the clock was years ahead": {[]time.Duration{0, 10 * time.Second, 20 * time.Second}, -4 * 365 * 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			s := testApp(t).store
			now := failing
			for _, after := range c.failures {
				now = failing.Add(after)
				if err := s.addReveal(now); err != nil {
					t.Fatal(err)
				}
			}
			now = now.Add(c.then)
			known := wantKind(t, s.checkReveals(now), ErrTooManyReveals)
			if known.Wait <= 0 || known.Wait > revealWait {
				t.Fatalf("says to wait for %v", known.Wait)
			}
			wantKind(t, s.checkReveals(now.Add(known.Wait-time.Second)), ErrTooManyReveals)
			if err := s.addReveal(now.Add(known.Wait)); err != nil {
				t.Errorf("after the %v that it said: %v", known.Wait, err)
			}
		})
	}
}

// A reveal counts even if the App is killed during it.
func TestRevealCountsBeforeItIsSent(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	counted := make(chan error, 1)
	b.rb = func(*revealed) []byte {
		now := time.Now()
		counted <- errors.Join(a.store.addReveal(now), a.store.addReveal(now), a.store.checkReveals(now))
		return nil
	}
	_, err := a.Pair(t.Context(), []string{b.address()}, PairOptions{Confirm: sayYes})
	wantKind(t, err, ErrInterference)
	if err := <-counted; !errors.Is(err, ErrTooManyReveals) {
		t.Errorf("while the reveal was under way: %v", err)
	}
}

func TestSuccessfulPairingsDoNotCount(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	for range maxReveals + 1 {
		mustPair(t, a, b)
	}
}

func TestUsersNoEndsThePairing(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	said := make(chan error, 1)
	b.confirm = func(conn *noiseconn.Conn, _ *revealed) {
		record, err := conn.ReadRecord()
		if err == nil {
			_, err = noiseconn.ParseAppConfirm(record)
		}
		said <- err
	}
	refused(t, a, b, ErrInterference, func(context.Context, Code) (bool, error) { return false, nil })
	if err := <-said; !errors.Is(err, noiseconn.ErrRejected) {
		t.Errorf("the Base was told %v", err)
	}
}

func TestNoAtTheBaseEndsThePairingWhileTheUserIsAsked(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	b.confirm = func(conn *noiseconn.Conn, _ *revealed) { _ = conn.WriteRecord(noiseconn.MarshalReject()) }
	asked := make(chan struct{})
	refused(t, a, b, ErrRejected, func(ctx context.Context, _ Code) (bool, error) {
		<-ctx.Done() // the question is withdrawn
		close(asked)
		return true, nil
	})
	<-asked
}

func TestLostConfirmOfTheBaseStoresNothing(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	b.confirm = func(conn *noiseconn.Conn, p *revealed) {
		_, _ = conn.ReadRecord()
		b.enrol(p) // the Base has stored it, and its record is lost on the way
	}
	refused(t, a, b, ErrInterference, sayYes)
}

// A Base that never got the App's Confirm has no pairing. The App believes that it has one, keeps
// it for a while, and then says what to do.
func TestLostConfirmOfTheAppEndsInPairAgain(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	a.timing.activate = 500 * time.Millisecond
	b.deaf = true
	base, err := a.Pair(t.Context(), []string{b.address()}, PairOptions{Confirm: sayYes})
	if err != nil || base.State != Pending {
		t.Fatalf("%+v, %v", base, err)
	}
	a.timing.handshake = 200 * time.Millisecond // in vain
	call := func() error {
		session, err := a.Open("")
		if err != nil {
			return err
		}
		defer session.Close()
		_, err = session.Info.GetInfo(t.Context(), &basev1.GetInfoRequest{})
		return err
	}
	wantKind(t, call(), ErrSilent)
	if list := bases(t, a); len(list) != 1 || list[0].State != Pending {
		t.Fatalf("too early: %+v", list)
	}
	a.now = func() time.Time { return time.Now().Add(a.timing.pendingLife) }
	wantKind(t, call(), ErrPairAgain)
	if list := bases(t, a); len(list) != 0 {
		t.Errorf("left over: %+v", list)
	}
	wantKind(t, call(), ErrNoSuchBase)
}

// An unreachable Base has said nothing, so its pairing is kept.
func TestPendingPairingSurvivesABaseThatIsOff(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	a.timing.activate = 300 * time.Millisecond
	b.deaf = true
	if _, err := a.Pair(t.Context(), []string{b.address()}, PairOptions{Confirm: sayYes}); err != nil {
		t.Fatal(err)
	}
	address := b.address()
	b.off()
	a.now = func() time.Time { return time.Now().Add(time.Hour) }
	session, err := a.Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	_, err = session.Info.GetInfo(t.Context(), &basev1.GetInfoRequest{})
	wantKind(t, err, ErrUnreachable)
	if list := bases(t, a); len(list) != 1 {
		t.Fatalf("%+v", list)
	}
	// The pairing had become active at the Base after all.
	b.mu.Lock()
	b.deaf = false
	b.mu.Unlock()
	b.listen(address)
	if _, err := session.Info.GetInfo(t.Context(), &basev1.GetInfoRequest{}); err != nil {
		t.Fatal(err)
	}
	if list := bases(t, a); len(list) != 1 || list[0].State != Active {
		t.Errorf("%+v", list)
	}
}

func TestHostileP4IsRefusedBeforeTheCodeIsShown(t *testing.T) {
	name := func(text string) func(record []byte) {
		return func(record []byte) {
			clear(record[65:])
			record[65] = byte(len(text))
			copy(record[66:], text)
		}
	}
	for what, spoil := range map[string]func(record []byte){
		"terminal controls": name("Base\x1b[2J"),
		"a newline":         name("Base\nCode: 111 111"),
		"right-to-left":     name("Base \u202e"),
		"invisible":         name("Base\u200b"),
		"broken UTF-8":      name("Base\xff"),
		"no name":           name(""),
		"a name too long":   func(record []byte) { record[65] = 64 },
		"padding not zero":  func(record []byte) { record[len(record)-1] = 1 },
		"an unknown role":   func(record []byte) { record[64] = 4 },
		"no role":           func(record []byte) { record[64] = 0 },
		"a byte of r_B":     func(record []byte) { record[31] ^= 1 },
	} {
		t.Run(what, func(t *testing.T) {
			a, b := testApp(t), newFakeBase(t)
			b.rb = func(p *revealed) []byte { record := b.honestP4(p); spoil(record); return record }
			refused(t, a, b, ErrInterference, neverAsked(t))
		})
	}
}

func TestP4OfAnotherSizeIsRefusedBeforeTheCodeIsShown(t *testing.T) {
	for _, change := range []func([]byte) []byte{
		func(r []byte) []byte { return r[:len(r)-1] },
		func(r []byte) []byte { return append(r, 0) },
		func([]byte) []byte { return noiseconn.MarshalReject() },
	} {
		a, b := testApp(t), newFakeBase(t)
		b.rb = func(p *revealed) []byte { return change(b.honestP4(p)) }
		refused(t, a, b, ErrInterference, neverAsked(t))
	}
}

func TestAlteredP2RevealsNothing(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	b.accept = func([]byte) bool { return false }
	// A proxy answers in the place of the Base.
	fake, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	got := make(chan int64, 1)
	go func() {
		conn, err := fake.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _, _ = noiseconn.ReadFrame(conn)
		_ = noiseconn.WriteFrame(conn, noiseconn.TypePair, make([]byte, noiseconn.P2Size))
		n, _ := io.Copy(io.Discard, conn)
		got <- n
	}()
	_, err = a.Pair(t.Context(), []string{fake.Addr().String()}, PairOptions{Confirm: neverAsked(t)})
	wantKind(t, err, ErrNotABase)
	if n := <-got; n != 0 {
		t.Errorf("the App sent %d bytes after an altered P2", n)
	}
	if err := a.store.checkReveals(time.Now()); err != nil {
		t.Error(err)
	}
}

// other listens on a port that does not belong to a Base.
func other(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { serve(conn); conn.Close() }()
		}
	}()
	return listener.Addr().String()
}

func httpServer(t *testing.T) string {
	return other(t, func(conn net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
		}
	})
}

func TestPairingWithAnotherServerReportsIt(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	heard := make(chan struct{})
	asked := sync.OnceFunc(func() { close(heard) })
	for what, c := range map[string]struct {
		address string
		kind    error
	}{
		"an HTTP server": {httpServer(t), ErrNotABase},
		"an SSH server": {other(t, func(conn net.Conn) { _, _ = io.WriteString(conn, "SSH-2.0-x\r\n"); _, _ = io.Copy(io.Discard, conn) }),
			ErrNotABase},
		"one that hangs up": {other(t, func(net.Conn) {}), ErrNotABase},
		"a silent one": {other(t, func(conn net.Conn) {
			_, _ = conn.Read(make([]byte, 1))
			asked()
			_, _ = io.Copy(io.Discard, conn)
		}), ErrNotAccepted},
		"a closed port":   {closed.Addr().String(), ErrUnreachable},
		"no host":         {":8845", ErrInvalid},
		"port 0":          {"127.0.0.1:0", ErrInvalid},
		"a URL":           {"http://127.0.0.1/", ErrInvalid},
		"an unknown name": {"nowhere.invalid", ErrUnreachable},
	} {
		t.Run(what, func(t *testing.T) {
			a := testApp(t)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if c.kind == ErrNotAccepted {
				go func() { <-heard; cancel() }() // it answers nobody
			}
			_, err := a.Pair(ctx, []string{c.address}, PairOptions{Confirm: neverAsked(t)})
			wantKind(t, err, c.kind)
		})
	}
}

func TestSecondAddressIsTriedWhenTheFirstIsDead(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	if _, err := a.Pair(t.Context(), []string{"127.0.0.1:1", b.address()}, PairOptions{Confirm: sayYes}); err != nil {
		t.Fatal(err)
	}
	if list := bases(t, a); len(list) != 1 || list[0].Addresses[0] != b.address() {
		t.Errorf("%+v", list)
	}
}

func TestBadNamesAreRefused(t *testing.T) {
	if _, err := New(Options{Dir: t.TempDir(), Name: "a\nb"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("App's name: %v", err)
	}
	_, err := testApp(t).Pair(t.Context(), []string{"127.0.0.1"}, PairOptions{Name: "\u202e", Confirm: sayYes})
	wantKind(t, err, ErrInvalid)
}
