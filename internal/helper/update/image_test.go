package update

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/slot"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/slottest"
)

// board is a machine that runs the image. It implements ImageHost.
type board struct {
	t     *testing.T
	disk  *slottest.Machine
	store Store
	slots *slot.Slots
	boots int
	// started and restarted are what was asked of systemd.
	started, restarted bool
	// sick are the versions with which the Base is not well; lonely: no App comes.
	sick   []string
	lonely bool
	oldest string
}

func newBoard(t *testing.T, version string) *board {
	b := &board{t: t, disk: slottest.NewMachine(anImage(version)), store: NewStore(t.TempDir())}
	b.boot()
	return b
}

func anImage(version string) slottest.Release { return slottest.NewRelease(version, "amd64", theSeed) }

// boot starts the machine.
func (b *board) boot() {
	b.t.Helper()
	b.disk.Restart()
	slots, err := b.disk.Start()
	if err != nil {
		b.t.Fatalf("the machine does not start: %v", err)
	}
	b.slots, b.started, b.restarted = slots, false, false
	b.boots++
}

func (b *board) Architecture(context.Context) (string, error) { return "amd64", nil }
func (b *board) Installed(context.Context) (string, error)    { return b.slots.Running, nil }
func (b *board) IsImage() bool                                { return true }
func (b *board) Describe(context.Context, string) (p Package, err error) {
	return p, errors.New("no dpkg")
}
func (b *board) Start(context.Context) error            { b.started = true; return nil }
func (b *board) BootID() (string, error)                { return fmt.Sprint("boot ", b.boots), nil }
func (b *board) Oldest(context.Context) (string, error) { return b.oldest, nil }
func (b *board) Reboot(context.Context) error           { b.restarted = true; return nil }

// Look has the App confirm what it sees healthy, as an owner's does.
func (b *board) Look(context.Context) (c Condition, err error) {
	if slices.Contains(b.sick, b.slots.Running) {
		c.Down = []string{"the Middleware is failed"}
		return c, nil
	}
	if j, err := b.store.Journal(); err == nil && j.AwaitsApp() && !b.lonely {
		if err := b.receiver().Confirm(j.ID); err != nil {
			b.t.Errorf("confirm: %v", err)
		}
	}
	return c, nil
}

func (b *board) receiver() *Receiver {
	r, err := NewReceiver(b.store, b, release.PublicKey(theSeed))
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b *board) installer() *ImageInstaller {
	return &ImageInstaller{Store: b.store, Host: b, Slots: b.slots, Key: release.PublicKey(theSeed),
		Prove: 200 * time.Millisecond, Calm: time.Millisecond, Look: time.Millisecond, Confirm: 200 * time.Millisecond}
}

// bring uploads what comes behind from.
func (b *board) bring(r *Receiver, image slottest.Release, from uint64) (Journal, error) {
	id, err := r.Begin(b.t.Context(), image.Preamble, from)
	for offset := from; err == nil && offset < image.Header.Size; {
		_, size, _ := image.Header.Image.Chunk(offset)
		err = r.Piece(id, offset, image.Parts[offset:offset+size])
		offset += size
	}
	if err != nil {
		return Journal{}, err
	}
	return r.Finish(b.t.Context(), id)
}

// live does what systemd does, from one start to the next, until nothing restarts.
func (b *board) live() {
	b.t.Helper()
	for range 12 {
		if err := b.installer().Settle(b.t.Context()); err != nil && !errors.Is(err, ErrRestarting) && !b.restarted {
			b.t.Logf("version %s: %v", b.slots.Running, err)
		}
		if !b.restarted {
			if err := b.installer().Run(b.t.Context()); err != nil && !errors.Is(err, ErrRestarting) {
				b.t.Fatalf("version %s: %v", b.slots.Running, err)
			}
		}
		if !b.restarted {
			return
		}
		b.boot()
	}
	b.t.Fatal("the machine restarts again and again")
}

// ended returns the journal of the update that is over.
func (b *board) ended(phase Phase, running string) Journal {
	b.t.Helper()
	j, err := b.store.Journal()
	if err != nil || j.Phase != phase || b.slots.Running != running {
		b.t.Fatalf("version %s runs, and the journal is %+v: %v", b.slots.Running, j, err)
	}
	return j
}

func (b *board) updateTo(version string) {
	b.t.Helper()
	if _, err := b.bring(b.receiver(), anImage(version), 0); err != nil || !b.started {
		b.t.Fatalf("bring version %s: %v; begun %v", version, err, b.started)
	}
	b.live()
}

func TestAnImageIsInstalledOnceItIsWellAndItsAppHasComeBack(t *testing.T) {
	b := newBoard(t, "1")
	b.updateTo("2")
	b.ended(Done, "2")
	if counted, err := b.slots.Counted(); counted || err != nil {
		t.Errorf("it is not blessed: %v", err)
	}
	if slots, err := b.store.Slots(); err != nil || slots != (Slots{"2", "1"}) {
		t.Errorf("the slots are %+v, %v", slots, err)
	}
	b.updateTo("3")
	b.ended(Done, "3")
	if slots, err := b.store.Slots(); err != nil || slots != (Slots{"3", "2"}) {
		t.Errorf("the slots are %+v, %v", slots, err)
	}
}

func TestAnImageThatIsNotWellOrThatNoAppConfirmsGoesBackByItself(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*board)
		reason string
	}{
		"not well": {func(b *board) { b.sick = []string{"2"} }, "the Base is not well: the Middleware is failed"},
		"no App":   {func(b *board) { b.lonely = true }, "no App has confirmed it within 200ms"},
	} {
		b := newBoard(t, "1")
		c.change(b)
		b.updateTo("2")
		if j := b.ended(Undone, "1"); j.Reason != c.reason {
			t.Errorf("%s: because %q", name, j.Reason)
		}
		if slots, err := b.store.Slots(); err != nil || slots != (Slots{Running: "1"}) {
			t.Errorf("%s: the slots are %+v, %v", name, slots, err)
		}
		// The next one is taken.
		b.sick, b.lonely = nil, false
		b.updateTo("3")
		b.ended(Done, "3")
	}
}

// A version that does not come so far as to judge itself is given up by systemd-boot.
func TestAnImageThatDoesNotComeUpGoesBackByItself(t *testing.T) {
	b := newBoard(t, "1")
	if _, err := b.bring(b.receiver(), anImage("2"), 0); err != nil {
		t.Fatal(err)
	}
	if err := b.installer().Run(t.Context()); !errors.Is(err, ErrRestarting) {
		t.Fatal(err)
	}
	for range 3 {
		if b.boot(); b.slots.Running != "2" {
			t.Fatalf("version %s runs", b.slots.Running)
		}
	}
	b.boot()
	b.live()
	if j := b.ended(Undone, "1"); j.Reason != "version 2 did not start" {
		t.Errorf("because %q", j.Reason)
	}
}

func TestABaseGoesBackByOrderButNeverBelowTheOldestVersionAllowed(t *testing.T) {
	b := newBoard(t, "1")
	if _, err := b.receiver().Back(t.Context(), ""); !errors.Is(err, ErrNotForThis) {
		t.Errorf("without an update: %v", err)
	}
	b.updateTo("2")
	if _, err := b.receiver().Back(t.Context(), "1.5"); !errors.Is(err, ErrNotForThis) {
		t.Errorf("below the oldest: %v", err)
	}
	back := func() {
		t.Helper()
		if _, err := b.receiver().Back(t.Context(), b.oldest); err != nil {
			t.Fatal(err)
		}
		b.live()
	}
	// The previous version is no longer healthy: the Base stays where it was.
	b.sick = []string{"1"}
	back()
	b.ended(Undone, "2")
	b.sick = nil
	back()
	b.ended(Done, "1")
	if _, err := b.receiver().Back(t.Context(), ""); !errors.Is(err, ErrNotForThis) {
		t.Errorf("forward by the order to go back: %v", err)
	}
	b.updateTo("2")
	b.ended(Done, "2")
	// Once the posture no longer allows it, nothing starts it, not even a failure.
	b.oldest = "2"
	b.live()
	if slots, err := b.store.Slots(); err != nil || slots != (Slots{Running: "2"}) {
		t.Errorf("the slots are %+v, %v", slots, err)
	}
}

// UKIs are public. Somebody who can write to the EFI partition has the previous version start by its
// UKI, before or after the posture forbids it.
func TestAVersionBelowTheOldestDoesNotStartFromAUKIThatIsPutBack(t *testing.T) {
	for _, early := range []bool{false, true} {
		t.Run(fmt.Sprintf("taken away before: %v", early), func(t *testing.T) {
			b := newBoard(t, "1")
			b.updateTo("2")
			one, esp := anImage("1"), b.disk.ESP()
			if early {
				if err := esp.Remove(slot.Entry{Version: "1"}.Name()); err != nil {
					t.Fatal(err)
				}
			}
			b.oldest = "2"
			b.boot()
			b.live()
			i := one.Header.Image
			if err := errors.Join(esp.Remove(slot.Entry{Version: "2"}.Name()),
				esp.Write(slot.Entry{Version: "1"}.Name(), bytes.NewReader(one.Parts[i.RootSize+i.VeritySize:]))); err != nil {
				t.Fatal(err)
			}
			if s, err := b.disk.Start(); err == nil {
				t.Errorf("version %s starts", s.Running)
			}
		})
	}
}

func TestAnUploadThatBrokeOffGoesOn(t *testing.T) {
	b, image := newBoard(t, "1"), anImage("2")
	r := b.receiver()
	id, err := r.Begin(t.Context(), image.Preamble, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Piece(id, 0, image.Parts[:release.ChunkSize]); err != nil {
		t.Fatal(err)
	}
	r.Abort(id)
	// The helper was ended in between, and half a chunk came on disk.
	r = b.receiver()
	preamble, size, ok := r.Partial()
	if !ok || size != release.ChunkSize || preamble != sha256Of(image.Preamble) {
		t.Fatalf("%d bytes of %x are there, %v", size, preamble[:4], ok)
	}
	other := anImage("3")
	if _, err := r.Begin(t.Context(), other.Preamble, size); !errors.Is(err, ErrNoUpload) {
		t.Errorf("another release goes on with it: %v", err)
	}
	if _, err := b.bring(r, image, size); err != nil {
		t.Fatal(err)
	}
	b.live()
	b.ended(Done, "2")
}

func TestAPartThatWasTornIsBroughtAgain(t *testing.T) {
	b, image := newBoard(t, "1"), anImage("2")
	r := b.receiver()
	id, err := r.Begin(t.Context(), image.Preamble, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Piece(id, 0, image.Parts[:release.ChunkSize]); err != nil {
		t.Fatal(err)
	}
	r.Abort(id)
	torn := bytes.Clone(image.Parts[:release.ChunkSize])
	torn[7] ^= 1
	writeFile(t, b.store.path(incomingImageFile), torn)
	if _, err := r.Begin(t.Context(), image.Preamble, release.ChunkSize); !errors.Is(err, ErrNoUpload) {
		t.Errorf("a torn part is gone on with: %v", err)
	}
	if _, _, ok := r.Partial(); ok {
		t.Error("the torn part is still there")
	}
	if _, err := b.bring(r, image, 0); err != nil {
		t.Fatal(err)
	}
}

func TestAnImageThatIsNotForThisBaseIsRefusedBeforeAnythingIsStored(t *testing.T) {
	b := newBoard(t, "2")
	for name, c := range map[string]struct {
		preamble []byte
		want     error
	}{
		"the same version":    {anImage("2").Preamble, ErrNotForThis},
		"an older version":    {anImage("1").Preamble, ErrNotForThis},
		"another machine":     {slottest.NewRelease("3", "arm64", theSeed).Preamble, ErrNotForThis},
		"another key":         {slottest.NewRelease("3", "amd64", seedOf(2)).Preamble, release.ErrSignature},
		"a package":           {goodRelease()[:release.HeaderSize], ErrNotForThis},
		"half of a preamble":  {anImage("3").Preamble[:100], release.ErrDamaged},
		"nothing":             {nil, release.ErrNotARelease},
		"a part that is none": {anImage("3").Preamble, nil},
	} {
		from := uint64(0)
		if c.want == nil {
			from, c.want = release.ChunkSize, ErrNoUpload
		}
		if _, err := b.receiver().Begin(t.Context(), c.preamble, from); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if left := filesOf(t, b.store); len(left) != 0 {
			t.Errorf("%s: on disk are %q", name, left)
		}
	}
	f := newFixture(t)
	if _, err := f.receiver.Begin(t.Context(), anImage("3").Preamble, 0); !errors.Is(err, ErrNotForThis) {
		t.Errorf("an image for a Debian with the package: %v", err)
	}
}

func TestAChunkThatWasNotSignedIsNotStored(t *testing.T) {
	b, image := newBoard(t, "1"), anImage("2")
	for _, bad := range [][]byte{
		append([]byte{image.Parts[0] ^ 1}, image.Parts[1:release.ChunkSize]...), image.Parts[:release.ChunkSize-1],
		image.Parts[1 : release.ChunkSize+1],
	} {
		r := b.receiver()
		id, err := r.Begin(t.Context(), image.Preamble, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Piece(id, 0, bad); !errors.Is(err, release.ErrDamaged) {
			t.Errorf("a wrong chunk: %v", err)
		}
		if _, size, _ := r.Partial(); size != 0 {
			t.Errorf("%d bytes are stored", size)
		}
	}
}

func TestOnlyTheUpdateOnTrialCanBeConfirmed(t *testing.T) {
	b := newBoard(t, "1")
	if err := b.receiver().Confirm(""); !errors.Is(err, ErrNotOnTrial) {
		t.Errorf("without an update: %v", err)
	}
	j, err := b.bring(b.receiver(), anImage("2"), 0)
	if err != nil {
		t.Fatal(err)
	}
	// Before the new version runs, nobody can have seen it: neither before it is written, nor
	// before the machine restarts.
	if err := b.receiver().Confirm(j.ID); !errors.Is(err, ErrNotOnTrial) {
		t.Errorf("too early: %v", err)
	}
	if err := b.installer().Run(t.Context()); !errors.Is(err, ErrRestarting) {
		t.Fatal(err)
	}
	if err := b.receiver().Confirm(j.ID); !errors.Is(err, ErrNotOnTrial) {
		t.Errorf("before the restart: %v", err)
	}
	if err := b.store.write(Journal{ID: "1", Phase: Checking, OnTrial: true}); err != nil {
		t.Fatal(err)
	}
	if err := b.receiver().Confirm(j.ID); !errors.Is(err, ErrNotOnTrial) {
		t.Errorf("another update: %v", err)
	}
}

// The whole way of an update, with the power cut at each operation on the disk, in the old
// version and in the new one.
func TestAPowerCutAnywhereInAnUpdateEndsInTheOldVersionOrTheNewOne(t *testing.T) {
	begin := func(seed uint64) *board {
		b := newBoard(t, "1")
		b.disk = b.disk.Clone(seed)
		b.boot()
		if _, err := b.bring(b.receiver(), anImage("2"), 0); err != nil {
			t.Fatal(err)
		}
		return b
	}
	whole := begin(0)
	whole.live()
	whole.ended(Done, "2")
	count := map[string]int{}
	for n := 1; n <= whole.disk.Done; n++ {
		b := begin(uint64(n))
		b.disk.Left = n
		for !b.restarted {
			err := b.installer().Settle(t.Context())
			if err == nil && !b.restarted {
				err = b.installer().Run(t.Context())
			}
			if b.disk.Left == 0 {
				break
			}
			if err != nil && !errors.Is(err, ErrRestarting) {
				t.Fatal(err)
			}
			left := b.disk.Left
			b.boot()
			b.disk.Left = left
		}
		b.boot()
		b.live()
		j, err := b.store.Journal()
		if err != nil || !j.Phase.Ended() || j.Phase == Failed || (j.Phase == Done) != (b.slots.Running == "2") {
			t.Errorf("cut at operation %d: version %s runs, and the journal is %+v: %v", n, b.slots.Running, j, err)
		}
		count[b.slots.Running]++
		if counted, err := b.slots.Counted(); counted || err != nil {
			t.Errorf("cut at operation %d: version %s is not blessed: %v", n, b.slots.Running, err)
		}
	}
	t.Logf("versions that ran in the end: %v", count)
	if count["2"] == 0 {
		t.Error("no cut was survived by the update")
	}
}

// To verify a part takes a slow disk a minute. Nobody waits for it but its own App, and it ends with
// that App.
func TestNobodyWaitsWhileAPartIsVerified(t *testing.T) {
	b, image := newBoard(t, "1"), anImage("2")
	r := b.receiver()
	id, err := r.Begin(t.Context(), image.Preamble, 0)
	if err != nil {
		t.Fatal(err)
	}
	r.Abort(id)
	// A part that takes as long to read as this test likes.
	slow := b.store.path(incomingImageFile)
	if err := errors.Join(os.Remove(slow), syscall.Mkfifo(slow, 0o600)); err != nil {
		t.Fatal(err)
	}
	feed, err := os.OpenFile(slow, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer feed.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := r.Begin(ctx, image.Preamble, release.ChunkSize)
		ended <- err
	}()
	// As long as it has the lock, everybody waits.
	isReading := func() bool {
		if !r.mu.TryLock() {
			return false
		}
		defer r.mu.Unlock()
		return r.beginning
	}
	for deadline := time.Now().Add(patience); !isReading(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it verifies the part with the lock held, or not at all")
		}
	}
	asked := make(chan error, 1)
	go func() {
		_, err := r.Begin(t.Context(), anImage("3").Preamble, 0)
		r.Abort(id)
		if _, _, ok := r.Partial(); ok {
			err = errors.New("the part is offered to another App meanwhile")
		}
		asked <- err
	}()
	select {
	case err := <-asked:
		if !errors.Is(err, ErrBusy) {
			t.Errorf("another App is told %v", err)
		}
	case <-time.After(patience):
		t.Error("another App waits")
	}
	cancel()
	if _, err := feed.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the App that has gone is told %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it reads on for nobody")
	}
	if id, err = r.Begin(t.Context(), anImage("3").Preamble, 0); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	r.Abort(id)
}
