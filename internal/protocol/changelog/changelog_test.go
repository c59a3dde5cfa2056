package changelog

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

func TestAnAppBelievesAWholeLogAndRemembersItsEnd(t *testing.T) {
	l := logOf(t, "one", "two", "three")
	head, entries := shown(l)
	view, err := Verify(expecting(Memory{}), head, head, entries)
	if err != nil {
		t.Fatal(err)
	}
	if len(view.Entries) != 3 || view.Entries[2].GetDetail() != "three" || view.Last != 3 || view.Missed || view.Forgotten != 0 {
		t.Errorf("%+v", view)
	}
	extend(t, l, "four")
	head, entries = shown(l)
	if _, err := Verify(expecting(view.Memory()), head, head, entries); err != nil {
		t.Errorf("a log that has grown: %v", err)
	}
	empty := logOf(t)
	head, entries = shown(empty)
	view, err = Verify(expecting(Memory{}), head, head, entries)
	if err != nil || view.Last != 0 {
		t.Errorf("an empty log: %v, %+v", err, view)
	}
	extend(t, empty, "one")
	head, entries = shown(empty)
	if _, err := Verify(expecting(view.Memory()), head, head, entries); err != nil {
		t.Errorf("a log that has begun: %v", err)
	}
}

// Each attack is on an App that has seen three entries. Without the check that is named
// with it, the same attack succeeds.
func TestRewrittenForgottenAndForkedHistoryIsNoticed(t *testing.T) {
	l := logOf(t, "one", "two", "three")
	head, entries := shown(l)
	view, err := Verify(expecting(Memory{}), head, head, entries)
	if err != nil {
		t.Fatal(err)
	}
	memory := view.Memory()
	for name, attack := range map[string]struct {
		beats string
		want  error
		shows func() (*systemv1.ChangesHead, [][]byte)
	}{
		"an entry is rewritten, and all that follow": {"same history", ErrRewritten, func() (*systemv1.ChangesHead, [][]byte) {
			return shown(logOf(t, "one", "nothing", "three", "four"))
		}},
		"the end is taken off": {"not shorter", ErrShorter, func() (*systemv1.ChangesHead, [][]byte) { return shown(logOf(t, "one", "two")) }},
		"the Middleware holds back the newest": {"whole", ErrHead, func() (*systemv1.ChangesHead, [][]byte) {
			grown := logOf(t, "one", "two", "three", "four")
			head, entries := shown(grown)
			return head, entries[:3]
		}},
		"the beginning is forgotten": {"forgotten when full", ErrForgotten, func() (*systemv1.ChangesHead, [][]byte) {
			short := Restore(1, l.entries[0].Hash)
			for _, s := range l.entries[1:] {
				if err := short.Add(s.Bytes); err != nil {
					t.Fatal(err)
				}
			}
			return shown(short)
		}},
		"an old answer is given again": {"nonce", ErrHead, func() (*systemv1.ChangesHead, [][]byte) {
			head, entries := shown(l)
			head.Nonce = slices.Repeat([]byte{6}, nonceSize)
			return head, entries
		}},
		"the Base was reset": {"known epoch", ErrNewEpoch, func() (*systemv1.ChangesHead, [][]byte) {
			head, entries := shown(l)
			head.Epoch = make([]byte, len(posture.Epoch{}))
			return head, entries
		}},
		"another Base's log is shown": {"this Base", ErrHead, func() (*systemv1.ChangesHead, [][]byte) {
			head, entries := shown(l)
			head.BaseId = make([]byte, 32)
			return head, entries
		}},
	} {
		head, entries := attack.shows()
		_, err := look("", memory, head, entries)
		wantErr(t, name, err, attack.want)
		if _, err := look(attack.beats, memory, head, entries); err != nil {
			t.Errorf("%s: without the check %q it is refused as well (%v); this attack proves nothing", name, attack.beats, err)
		}
	}
}

func TestAnEntryThatIsChangedTakenOutOrPutInBreaksTheChain(t *testing.T) {
	l := logOf(t, "one", "two", "three", "four")
	head, entries := shown(l)
	refused := func(what string, entries [][]byte) {
		t.Helper()
		if _, err := Verify(expecting(Memory{}), head, head, entries); err == nil {
			t.Errorf("%s: it is believed", what)
		}
	}
	for n := range entries {
		refused("taken out", slices.Delete(slices.Clone(entries), n, n+1))
		refused("twice", slices.Insert(slices.Clone(entries), n, entries[n]))
		for bit := range len(entries[n]) * 8 {
			changed := slices.Clone(entries)
			changed[n] = slices.Clone(entries[n])
			changed[n][bit/8] ^= 1 << (bit % 8)
			refused(fmt.Sprintf("bit %d of entry %d", bit, n+1), changed)
		}
	}
	swapped := slices.Clone(entries)
	swapped[1], swapped[2] = swapped[2], swapped[1]
	refused("swapped", swapped)
}

func TestAHeadThatTheHelperHasNotSignedIsRefused(t *testing.T) {
	head := headOf(logOf(t, "one"))
	signed := must(Sign(head, seed))
	if got, err := ReadHead(base, signed); err != nil || !proto.Equal(got, head) {
		t.Fatalf("%v, %v", got, err)
	}
	for bit := range len(signed) * 8 {
		changed := slices.Clone(signed)
		changed[bit/8] ^= 1 << (bit % 8)
		if _, err := ReadHead(base, changed); err == nil {
			t.Fatalf("it is believed with bit %d flipped", bit)
		}
	}
	if _, err := ReadHead(base, must(Sign(head, must(generateSeed(nil))))); err == nil {
		t.Error("somebody else's signature is believed")
	}
	// A signature for another purpose is none for this one.
	if _, err := ReadHead(base, posture.Seal("bitbox-base report v1", must(proto.Marshal(head)), seed)); err == nil {
		t.Error("a signature with another label is believed")
	}
}

func TestAnEntryIsReadStrictly(t *testing.T) {
	whole := func() *systemv1.ChangeEntry {
		e := draft(Reboot, "")
		e.Number, e.PreviousHash = 1, make([]byte, 32)
		return e
	}
	if _, err := Parse(must(proto.Marshal(whole()))); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*systemv1.ChangeEntry){
		"no number":        func(e *systemv1.ChangeEntry) { e.Number = 0 },
		"no previous hash": func(e *systemv1.ChangeEntry) { e.PreviousHash = nil },
		"no actor":         func(e *systemv1.ChangeEntry) { e.Actor = 0 },
		"another actor":    func(e *systemv1.ChangeEntry) { e.Actor = 9 },
		"no word":          func(e *systemv1.ChangeEntry) { e.What = "" },
		"no such word":     func(e *systemv1.ChangeEntry) { e.What = "Reboot now" },
		"an id that is none": func(e *systemv1.ChangeEntry) {
			e.AppId = "0123456789ABCDEF"
		},
		"a short key":           func(e *systemv1.ChangeEntry) { e.SigningKey = []byte{1} },
		"a long name":           func(e *systemv1.ChangeEntry) { e.AppName = strings.Repeat("n", MaxName+1) },
		"a long detail":         func(e *systemv1.ChangeEntry) { e.Detail = strings.Repeat("n", MaxDetail+1) },
		"a long failure":        func(e *systemv1.ChangeEntry) { e.Failure = strings.Repeat("n", MaxFailure+1) },
		"two lines":             func(e *systemv1.ChangeEntry) { e.Detail = "a\nb" },
		"an escape":             func(e *systemv1.ChangeEntry) { e.Failure = "\x1b[2J" },
		"another direction":     func(e *systemv1.ChangeEntry) { e.AppName = "\u202egnp.exe" },
		"a field from tomorrow": func(e *systemv1.ChangeEntry) { e.ProtoReflect().SetUnknown(tomorrow()) },
	} {
		e := whole()
		change(e)
		b, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(b); err == nil {
			t.Errorf("%s: it is read", name)
		}
	}
}

func tomorrow() []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, 90, protowire.VarintType), 1)
}

// Whatever text comes in, an entry can be made of it, and it fits into one line.
func FuzzAnyTextMakesAnEntryThatCanBeRead(f *testing.F) {
	f.Add("a name", "192.0.2.1", "it failed:\nno\x00room \u202e\xff")
	f.Add(strings.Repeat("ä", 200), strings.Repeat("\U0001F600", 300), strings.Repeat("\xff", 1000))
	f.Fuzz(func(t *testing.T, name, detail, failure string) {
		l := Restore(0, Hash{})
		s, err := l.Next(&systemv1.ChangeEntry{Actor: systemv1.ChangeEntry_ACTOR_ROOT, AppName: name, What: Reboot, Detail: detail,
			Failure: failure})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Add(s.Bytes); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAFullLogForgetsTheOldestAndAnAppsMemoryStillFits(t *testing.T) {
	l := logOf(t)
	for n := l.Len(); n < MaxEntries; n++ {
		if l.Forget() {
			t.Fatal("it forgets before it is full")
		}
		extend(t, l, "x")
	}
	remember := func(number uint64) Memory {
		hash, _ := l.hashOf(number)
		return Memory{Epoch: epoch, Number: number, Hash: hash}
	}
	drop := uint64(MaxEntries - Kept)
	memories := []Memory{remember(1), remember(drop), remember(drop + 1), remember(MaxEntries)}
	if !l.Forget() || l.Len() != Kept {
		t.Fatalf("%d entries are left", l.Len())
	}
	extend(t, l, "the newest")
	head, entries := shown(l)
	for i, memory := range memories {
		view, err := Verify(expecting(memory), head, head, entries)
		if err != nil || view.Missed != (i == 0) || view.Forgotten != drop {
			t.Errorf("an App that had seen %d entries: %v", memory.Number, err)
		}
		memory.Hash[0] ^= 1
		if _, err := Verify(expecting(memory), head, head, entries); (err == nil) != (i == 0) {
			t.Errorf("an App that had seen another entry %d: %v", memory.Number, err)
		}
	}
	// In stretches, as it comes over the wire.
	var all [][]byte
	for after := uint64(0); ; {
		stretch := l.Stretch(after, 0)
		if len(stretch) == 0 {
			break
		}
		if len(stretch) > MaxStretch {
			t.Fatalf("a stretch of %d", len(stretch))
		}
		all = append(all, stretch...)
		after = drop + uint64(len(all))
	}
	if !slices.EqualFunc(all, entries, slices.Equal) {
		t.Error("the stretches are not the log")
	}
	if got := l.Stretch(0, 3); len(got) != 3 || string(got[0]) != string(entries[0]) {
		t.Errorf("three from the beginning are %d", len(got))
	}
}

func TestEveryWordIsOneAndTheMiddlewareHasFew(t *testing.T) {
	var its []string
	for word, may := range Words {
		if !isWord(word) {
			t.Errorf("%q is no word", word)
		}
		if may.Middleware {
			its = append(its, word)
		}
	}
	slices.Sort(its)
	if want := []string{RenameApp, RevokeApp}; !slices.Equal(its, want) {
		t.Errorf("the Middleware may record %q, not %q", its, want)
	}
}
