package devbase_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/baserpc"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/devbase"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
)

// logBuffer keeps what a Base logs.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// lines returns the log's lines with all of the words in them.
func (b *logBuffer) lines(words ...string) (found []string) {
lines:
	for line := range strings.Lines(b.String()) {
		for _, word := range words {
			if !strings.Contains(line, word) {
				continue lines
			}
		}
		found = append(found, line)
	}
	return found
}

// testBase is a Base on a loopback port, and what it logs.
type testBase struct {
	*devbase.Base
	t      *testing.T
	config devbase.Config
	log    *logBuffer
}

// startBase starts a Base in a new state directory; change may change its configuration.
func startBase(t *testing.T, change func(*devbase.Config)) *testBase {
	t.Helper()
	b := &testBase{t: t, log: &logBuffer{}}
	b.config = devbase.Config{
		StateDir: t.TempDir() + "/state", // the one of the test is open to others
		Listen:   "127.0.0.1:0",
		Logger:   slog.New(slog.NewTextHandler(b.log, nil)),
	}
	if change != nil {
		change(&b.config)
	}
	b.start()
	t.Cleanup(func() {
		b.stop()
		if t.Failed() {
			t.Logf("the log of the Base:\n%s", b.log)
		}
	})
	return b
}

func (b *testBase) start() {
	b.t.Helper()
	var err error
	if b.Base, err = devbase.Start(b.config); err != nil {
		b.t.Fatal(err)
	}
}

func (b *testBase) stop() {
	b.t.Helper()
	if err := b.Base.Stop(); err != nil {
		b.t.Errorf("stop the Base: %v", err)
	}
}

// restart stops and starts it on the same state and port.
func (b *testBase) restart() {
	b.t.Helper()
	b.config.Listen = b.Addr().String()
	b.stop()
	b.start()
}

// eventually waits until condition holds. Only a test that fails waits for testTime.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testTime); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came true: %s", what)
		}
	}
}

// awaitSnapshot waits until what is shown at the Base satisfies condition.
func (b *testBase) awaitSnapshot(what string, condition func(*systemv1.Snapshot) bool) *systemv1.Snapshot {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), testTime)
	defer cancel()
	for seen := uint64(0); ; {
		snapshot, err := b.Console().Watch(ctx, seen)
		if err != nil {
			b.t.Fatalf("never came true at the Base: %s (%v)", what, err)
		}
		if condition(snapshot) {
			return snapshot
		}
		seen = snapshot.GetVersion()
	}
}

// accept is the act for an App's request.
func (b *testBase) accept(a *testApp, role basev1.Role) {
	b.t.Helper()
	if err := b.Console().Accept(b.t.Context(), a.number(), role); err != nil {
		b.t.Fatalf("accept the request of %s: %v", a.name, err)
	}
}

func (b *testBase) newApp(name string) *testApp {
	b.t.Helper()
	a, err := newTestApp(b.Addr().String(), name)
	if err != nil {
		b.t.Fatal(err)
	}
	return a
}

// show pairs an App up to where both sides show the code.
func (b *testBase) show(a *testApp, role basev1.Role) *shown {
	b.t.Helper()
	b.accept(a, role)
	c, commitment, err := a.request()
	if err != nil {
		b.t.Fatalf("request: %v", err)
	}
	s, err := a.reveal(c, commitment)
	if err != nil {
		b.t.Fatalf("reveal: %v", err)
	}
	b.t.Cleanup(func() { _ = c.Close() })
	return s
}

// answer is the answer of the person at the Base.
func (b *testBase) answer(yes bool) {
	b.t.Helper()
	snapshot := b.awaitSnapshot("a code is shown", func(s *systemv1.Snapshot) bool {
		return s.GetCeremony().GetPhase() == systemv1.Ceremony_PHASE_SHOWN
	})
	id, _ := pairing.CeremonyIDOf(snapshot)
	if err := b.Console().Answer(b.t.Context(), id, yes); err != nil {
		b.t.Fatalf("answer at the Base: %v", err)
	}
}

// pair pairs an App, which is pending then.
func (b *testBase) pair(name string, role basev1.Role) *testApp {
	b.t.Helper()
	a := b.newApp(name)
	s := b.show(a, role)
	b.answer(true)
	if err := s.confirm(); err != nil {
		b.t.Fatalf("confirm: %v", err)
	}
	if err := s.confirmed(); err != nil {
		b.t.Fatalf("await the Base's confirmation: %v", err)
	}
	return a
}

// pairActive pairs an App and makes it call once, which makes it active.
func (b *testBase) pairActive(name string, role basev1.Role) *testApp {
	b.t.Helper()
	if role != basev1.Role_ROLE_OWNER || b.awaitSnapshot("", func(*systemv1.Snapshot) bool { return true }).GetPaired() {
		if err := b.Console().OpenWindow(b.t.Context()); err != nil {
			b.t.Fatal(err)
		}
	}
	a := b.pair(name, role)
	if _, err := a.info(b.t.Context()); err != nil {
		b.t.Fatalf("the first call of %s: %v", name, err)
	}
	return a
}

// info makes one call over a session of its own.
func (a *testApp) info(ctx context.Context) (*basev1.GetInfoResponse, error) {
	client := a.client()
	defer client.close()
	return baserpc.NewInfoServiceClient(client).GetInfo(ctx, &basev1.GetInfoRequest{})
}

func TestAnAppIsPairedByCodeAndThenServed(t *testing.T) {
	b := startBase(t, nil)
	a := b.newApp("phone")
	s := b.show(a, basev1.Role_ROLE_UNSPECIFIED)
	shownAtBase := b.awaitSnapshot("a code is shown", func(s *systemv1.Snapshot) bool { return s.GetCeremony().GetCode() != "" })
	if shownAtBase.GetCeremony().GetCode() != s.code {
		t.Fatalf("the Base shows %s, the App %s", shownAtBase.GetCeremony().GetCode(), s.code)
	}
	b.answer(true)
	if err := s.confirm(); err != nil {
		t.Fatal(err)
	}
	if err := s.confirmed(); err != nil {
		t.Fatal(err)
	}
	info, err := a.info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if caller := info.GetCaller(); caller.GetName() != "phone" || caller.GetRole() != basev1.Role_ROLE_OWNER || !caller.GetIsCaller() {
		t.Errorf("the Base takes the App for %v", caller)
	}
	if key := b.PublicKey(); info.GetPublicKey() != hex.EncodeToString(key[:]) {
		t.Errorf("the Base names another key than its own: %s", info.GetPublicKey())
	}
	b.restart()
	if _, err := a.info(t.Context()); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}
