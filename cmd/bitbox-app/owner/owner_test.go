package owner

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

func answering() (Look, error) { return Look{Info: &basev1.GetInfoResponse{}}, nil }

// runs runs an Owner until what it returns is called.
func runs(o *Owner) (leave func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { o.Run(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

// house runs an Owner for a test. The id of its Base is of a key of zeros.
func house(t *testing.T, source *fakeSource) (o *Owner, base string) {
	t.Helper()
	if source.look == nil {
		source.look = answering
	}
	o = New(Options{Source: source, CallTime: 20 * time.Second, PairTime: 3 * time.Minute})
	t.Cleanup(runs(o))
	synctest.Wait()
	return o, o.State().Bases[0].ID()
}

func only(t *testing.T, o *Owner, number uint64) DeedState {
	t.Helper()
	synctest.Wait()
	d, known := o.State().Deed(number)
	if !known {
		t.Fatalf("deed %d is unknown", number)
	}
	return d
}

// must fails a test for an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var opens = []client.PostureChange{{Field: "extra", Text: "The port will be opened.", Opens: true}}

func TestADeedAsksAndTellsHowFarItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, base := house(t, &fakeSource{do: func(_ context.Context, d Deed, h Hand) (words.Said, error) {
			yes, err := h.Approve(opens)
			if !yes || err != nil {
				return words.Said{}, &client.Error{Kind: client.ErrNotApproved, Text: "nothing was changed"}
			}
			h.Progress(words.Plain("signed"))
			h.Sent(1, 2)
			return words.Plain("Done with " + d.Subject), nil
		}})
		number, err := o.Do(base, Deed{Kind: Expose, Subject: "electrum"})
		must(t, err)
		q := only(t, o, number).Question
		if q == nil || q.Kind != Consent || q.Changes[0].Text != opens[0].Text {
			t.Fatalf("it asks %+v", q)
		}
		if _, err := o.Do(base, Deed{Kind: Rename, Text: "x"}); !errors.Is(err, client.ErrNotNow) {
			t.Errorf("a second deed of the same Base: %v", err)
		}
		// A click that was meant for something else.
		if err := o.Answer(number, q.ID, Answer{Yes: true}); !errors.Is(err, ErrEarly) {
			t.Errorf("a yes at once: %v", err)
		}
		time.Sleep(readTime)
		if err := o.Answer(number, q.ID+1, Answer{Yes: true}); !errors.Is(err, ErrVoid) {
			t.Errorf("a yes to another question: %v", err)
		}
		must(t, o.Answer(number, q.ID, Answer{Yes: true}))
		d := only(t, o, number)
		if d.Ended.IsZero() || d.Result.String() != "Done with electrum" || len(d.Steps) != 1 || d.Steps[0].String() != "signed" ||
			d.Sent != 1 || d.Total != 2 {
			t.Errorf("it is %+v", d)
		}
		if err := o.Answer(number, q.ID, Answer{Yes: true}); !errors.Is(err, ErrVoid) {
			t.Errorf("a second yes: %v", err)
		}
	})
}

// An attacker at the Base's side changes the change while its owner reads: the yes to the first
// words is void for the second ones.
func TestAYesIsVoidForOtherWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		said := make(chan bool, 2)
		o, base := house(t, &fakeSource{do: func(ctx context.Context, _ Deed, h Hand) (words.Said, error) {
			for _, text := range []string{"A key will be added.", "All ports will be opened."} {
				yes, err := h.Approve([]client.PostureChange{{Text: text}})
				said <- yes
				if err != nil || !yes {
					return words.Said{}, &client.Error{Kind: client.ErrNotApproved, Text: "nothing was changed"}
				}
			}
			return words.Said{}, nil
		}})
		number, err := o.Do(base, Deed{Kind: Unlock})
		must(t, err)
		first := only(t, o, number).Question.ID
		time.Sleep(readTime)
		must(t, o.Answer(number, first, Answer{Yes: true}))
		second := only(t, o, number).Question
		time.Sleep(readTime)
		if err := o.Answer(number, first, Answer{Yes: true}); !errors.Is(err, ErrVoid) || second.ID == first {
			t.Errorf("the old yes answers the new question: %v", err)
		}
		must(t, o.Answer(number, second.ID, Answer{})) // a no counts at once
		if d := only(t, o, number); !<-said || <-said || client.Explain(d.Err) != "nothing was changed" {
			t.Errorf("it ended as %+v", d)
		}
	})
}

func TestALockdownWaitsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, base := house(t, &fakeSource{do: func(ctx context.Context, d Deed, _ Hand) (words.Said, error) {
			if d.Kind == Lockdown {
				return words.Plain("locked"), nil
			}
			<-ctx.Done()
			return words.Said{}, ctx.Err()
		}})
		hangs, err := o.Do(base, Deed{Kind: Reboot})
		must(t, err)
		lockdown, err := o.Do(base, Deed{Kind: Lockdown})
		must(t, err)
		if d := only(t, o, lockdown); d.Result.String() != "locked" {
			t.Errorf("%+v", d)
		}
		o.Stop(hangs)
		if d := only(t, o, hangs); d.Ended.IsZero() || !errors.Is(d.Err, context.Canceled) || d.Leaves.String() != "Nothing was changed." {
			t.Errorf("a deed that was stopped: %+v", d)
		}
	})
}

func TestStoppingAfterAYesSaysThatTheBaseMayHaveBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, base := house(t, &fakeSource{do: func(ctx context.Context, _ Deed, h Hand) (words.Said, error) {
			_, _ = h.Approve(opens)
			<-ctx.Done()
			return words.Said{}, ctx.Err()
		}})
		number, err := o.Do(base, Deed{Kind: Expose})
		must(t, err)
		q := only(t, o, number).Question
		time.Sleep(readTime)
		must(t, o.Answer(number, q.ID, Answer{Yes: true}))
		synctest.Wait()
		o.Stop(number)
		if d := only(t, o, number); !strings.Contains(d.Leaves.String(), "may have begun") {
			t.Errorf("it leaves %q", d.Leaves)
		}
	})
}

// A lockdown that was sent stays, as does all that the Base does not try: nobody may believe that it is
// undone.
func TestStoppingPromisesNothingThatTheBaseDoesNotDo(t *testing.T) {
	for kind := OpenWindow; kind <= Forget; kind++ {
		cut := leaves(Deed{Kind: kind}, &underWay{agreed: true}, context.Canceled).String()
		undone := strings.Contains(cut, "undoes")
		switch kind {
		case Unlock, Expose, EnableSSH, AddSSHKeys, RemoveSSHKey, Rename, NodeOnline, NodeOffline:
			if !undone {
				t.Errorf("%s leaves %q", kind, cut)
			}
		default:
			if undone || cut == "" {
				t.Errorf("%s leaves %q", kind, cut)
			}
		}
	}
	// A raise of a role is tried; a lower role holds at once.
	raise := leaves(Deed{Kind: SetRole}, &underWay{agreed: true, opens: true}, context.Canceled)
	if !strings.Contains(raise.String(), "undoes") {
		t.Errorf("a raise that was stopped leaves %q", raise)
	}
}

// Each click on the button begins one, as long as nobody has answered.
func TestLockdownsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, base := house(t, &fakeSource{do: func(ctx context.Context, _ Deed, _ Hand) (words.Said, error) {
			<-ctx.Done()
			return words.Said{}, ctx.Err()
		}})
		var last uint64
		for n := range 2 * MaxDeeds {
			number, err := o.Do(base, Deed{Kind: Lockdown})
			if (err == nil) != (n < maxLockdowns) {
				t.Errorf("lockdown %d: %v", n, err)
			}
			last = max(last, number)
		}
		if n := len(o.State().Deeds); n > maxLockdowns {
			t.Errorf("%d lockdowns are kept", n)
		}
		o.Stop(last)
		only(t, o, last)
		if _, err := o.Do(base, Deed{Kind: Lockdown}); err != nil {
			t.Errorf("after one has ended: %v", err)
		}
	})
}

func TestAPairingIsADeedAndAnEndingAppSaysNo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answered := make(chan bool, 1)
		source := &fakeSource{look: answering, pair: func(ctx context.Context, p client.PairOptions) (client.Base, error) {
			p.Requested("123 456")
			yes, err := p.Confirm(ctx, client.Code{Digits: "111 222"})
			answered <- yes && err == nil
			return client.Base{}, errors.New("ended")
		}}
		o := New(Options{Source: source, CallTime: time.Second, PairTime: time.Minute})
		leave := runs(o)
		synctest.Wait()
		number, err := o.Do("", Deed{Kind: Pair, Addresses: []string{"192.0.2.1:8845"}})
		must(t, err)
		d := only(t, o, number)
		if d.RequestNumber != "123 456" || d.Question == nil || d.Question.Kind != Compare || d.Question.Code.Digits != "111 222" {
			t.Fatalf("it is %+v", d)
		}
		if _, err := o.Do("", Deed{Kind: Pair}); !errors.Is(err, client.ErrNotNow) {
			t.Errorf("a second pairing: %v", err)
		}
		leave()
		if <-answered {
			t.Error("an App that ends has said yes")
		}
	})
}

// A part is asked for only while somebody looks at it.
func TestAPartIsAskedForWhileItIsWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &fakeSource{}
		o, base := house(t, source)
		logs := Want{Part: Logs, Subject: "nginx"}
		o.Want(base, logs)
		synctest.Wait()
		known, _ := o.State().Base(base)
		if len(known.Parts[logs].Lines) != 1 || known.Parts[logs].At.IsZero() {
			t.Fatalf("the answer is %+v", known.Parts)
		}
		time.Sleep(2 * wantTime)
		source.locked(func() {
			if source.asks < 5 || source.asks > 20 {
				t.Errorf("it was asked %d times", source.asks)
			}
			source.asks = 0
		})
		time.Sleep(time.Hour)
		source.locked(func() {
			if source.asks != 0 {
				t.Errorf("after nobody wants it, it is asked %d times", source.asks)
			}
		})
		if later, _ := o.State().Base(base); len(later.Parts) > 0 || len(known.Parts) != 1 {
			t.Errorf("%d answers are kept that nobody looks at; the old state has %d", len(later.Parts), len(known.Parts))
		}
		for n := range 2 * maxWants {
			o.Want(base, Want{Part: Logs, Subject: strings.Repeat("x", n+1)})
		}
		if len(o.wanted) > maxWants {
			t.Errorf("%d parts are asked for", len(o.wanted))
		}
	})
}

// renamed is a house with two Bases, whose names this App exchanges.
type renamed struct {
	*fakeSource
	exchanged bool
}

func (r *renamed) Bases() ([]client.Base, error) {
	bases := []client.Base{{Name: "kitchen", State: client.Active}, {Name: "attic", State: client.Active, PublicKey: [32]byte{1}, AppID: "x"}}
	r.locked(func() {
		if r.exchanged {
			bases[0].Name, bases[1].Name = bases[1].Name, bases[0].Name
		}
	})
	return bases, nil
}

func (r *renamed) Open(name string) (Session, error) {
	session, err := r.fakeSource.Open(name)
	return namedSession{session, name}, err
}

// namedSession answers with the name by which it was opened.
type namedSession struct {
	Session
	name string
}

func (s namedSession) Ask(context.Context, Want) (Answered, error) {
	return Answered{ListFrom: s.name}, nil
}

// An answer stays with the Base that was asked when another one gets its name.
func TestAPartIsAskedOfTheSameBaseAfterARenaming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &renamed{fakeSource: &fakeSource{look: answering}}
		o := New(Options{Source: source, CallTime: 20 * time.Second})
		t.Cleanup(runs(o))
		synctest.Wait()
		first, second, what := o.State().Bases[0].ID(), o.State().Bases[1].ID(), Want{Part: Disks}
		o.Want(first, what)
		synctest.Wait()
		source.locked(func() { source.exchanged = true })
		o.Refresh("", false)
		time.Sleep(2 * partEvery)
		synctest.Wait()
		kitchen, _ := o.State().Base(first)
		attic, _ := o.State().Base(second)
		if from := kitchen.Parts[what].ListFrom; kitchen.Name != "attic" || from != "attic" || len(attic.Parts) != 0 {
			t.Errorf("the Base that is now %q was asked as %q; the other one has %v", kitchen.Name, from, attic.Parts)
		}
	})
}

// A service that logs much is followed by one stream, which ends when another log is looked at, or none.
func TestALogIsFollowedWhileItIsLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &fakeSource{}
		following := map[string]int{}
		source.logs = func(ctx context.Context, service string, tell func(*basev1.LogEntry)) error {
			source.locked(func() { following[service]++ })
			defer source.locked(func() { following[service]-- })
			for n := 0; ctx.Err() == nil; n++ {
				tell(&basev1.LogEntry{Text: fmt.Sprint(service, n)})
				pause(ctx, time.Millisecond)
			}
			return ctx.Err()
		}
		o, base := house(t, source)
		nginx, sshd := Want{Part: Logs, Subject: "nginx"}, Want{Part: Logs, Subject: "sshd"}
		streams := func(when string, ofNginx, ofSSHD int) {
			t.Helper()
			synctest.Wait()
			source.locked(func() {
				if following["nginx"] != ofNginx || following["sshd"] != ofSSHD {
					t.Errorf("%s there are %v streams", when, following)
				}
			})
		}
		lines := func(of Want) []*basev1.LogEntry {
			known, _ := o.State().Base(base)
			return known.Parts[of].Lines
		}
		o.Want(base, nginx)
		time.Sleep(time.Second)
		streams("at first", 1, 0)
		before := lines(nginx)
		first := before[0].GetText()
		time.Sleep(time.Second)
		if now := lines(nginx); len(now) != logLines || now[0].GetText() == first || before[0].GetText() != first {
			t.Errorf("%d lines, from %q on; before from %q", len(now), now[0].GetText(), first)
		}
		o.Want(base, sshd)
		streams("once another is looked at", 0, 1)
		time.Sleep(wantTime - time.Second)
		o.Want(base, sshd)
		if asked := lines(nginx); len(asked) != 1 {
			t.Errorf("the first one is not asked for: %d lines", len(asked))
		}
		time.Sleep(2 * partEvery)
		streams("while only the second one is looked at", 0, 1)
		time.Sleep(2 * wantTime)
		streams("when nobody looks", 0, 0)
		if len(o.tails)+len(o.wanted) > 0 {
			t.Errorf("%v and %v are left", o.tails, o.wanted)
		}
		o.Want(base, nginx)
		streams("later", 1, 0)
	})
}

// A state that was given out stays as it is.
func TestAStateIsACopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, base := house(t, &fakeSource{})
		bans := func(n uint64) Happened {
			return Happened{Base: "kitchen", Event: &basev1.Event{Sequence: n, Event: &basev1.Event_BansChanged{}}}
		}
		o.tell(bans(1))
		before := o.State()
		for n := range uint64(3 * MaxEvents) {
			o.tell(bans(n + 2))
			o.tell(Happened{Base: "kitchen", Event: &basev1.Event{Sequence: n + 2,
				Event: &basev1.Event_AppRenamed{AppRenamed: &basev1.AppRenamedEvent{App: &basev1.App{Id: strings.Repeat("x", int(n))}}}}})
		}
		old, _ := before.Base(base)
		now, _ := o.State().Base(base)
		if len(old.Events) != 1 || old.Events[0].Times != 1 {
			t.Errorf("the old state has %d events", len(old.Events))
		}
		if len(now.Events) != MaxEvents {
			t.Errorf("%d events are kept", len(now.Events))
		}
	})
}

func TestQuittingIsQuickWhateverHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		o := New(Options{Source: &fakeSource{look: func() (Look, error) { <-release; return Look{}, nil }}, CallTime: time.Minute})
		leave := runs(o)
		synctest.Wait()
		begun := time.Now()
		leave()
		if took := time.Since(begun); took > leaveTime {
			t.Errorf("it took %v", took)
		}
	})
}

func TestEachDeedHasAName(t *testing.T) {
	for kind := OpenWindow; kind <= Forget; kind++ { // all that have a constant
		if again, known := ParseDeed(kind.String()); !known || again != kind {
			t.Errorf("deed %d is called %q", kind, kind)
		}
	}
	if _, known := ParseDeed(""); known {
		t.Error("no name is a deed")
	}
}

// A Base decides how many lines Debian's updates have, and how long they are. The newest are kept: the
// page shows where it is.
func TestTheStepsOfADeedAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, base := house(t, &fakeSource{do: func(_ context.Context, _ Deed, h Hand) (words.Said, error) {
			for n := range 3 * maxSteps {
				h.Progress(words.Plain(fmt.Sprint(n, strings.Repeat("x", 1<<20))))
			}
			h.Progress(words.Saying("steps.send"))
			return words.Said{}, nil
		}})
		number, err := o.Do(base, Deed{Kind: DebianUpdates})
		must(t, err)
		steps := only(t, o, number).Steps
		if len(steps) != maxSteps || steps[len(steps)-1].String() != words.Saying("steps.send").String() {
			t.Errorf("%d steps are kept", len(steps))
		}
		for _, step := range steps {
			if size := len(step.String()); size > longestLine+len(" …") {
				t.Fatalf("a step of %d bytes", size)
			}
		}
	})
}

// A Base that lies sends a log without end, whose lines have any length.
func TestALogWithoutEndIsCut(t *testing.T) {
	lines, err := firstLines(func(yield func(*basev1.LogEntry, error) bool) {
		long := strings.Repeat("ä", 2*longestLine)
		for n := 0; ; n++ {
			e := &basev1.LogEntry{Text: long, Service: long, Time: timestamppb.Now()}
			e.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, 99, protowire.BytesType), long))
			e.Time.ProtoReflect().SetUnknown(e.ProtoReflect().GetUnknown())
			if !yield(e, nil) {
				return
			}
			if n > 2*logLines {
				t.Fatal("it is read without end")
			}
		}
	})
	if err != nil || len(lines) != logLines {
		t.Errorf("%d lines, %v", len(lines), err)
	}
	for _, line := range lines {
		if len(line.Text) > longestLine+len(" …") || strings.ContainsRune(line.Text, '\ufffd') {
			t.Fatalf("a line of %d bytes", len(line.Text))
		}
		if size := proto.Size(line); size > longestLine+50 {
			t.Fatalf("%d bytes are kept of an entry", size)
		}
	}
	lost := errors.New("lost")
	if _, err := firstLines(func(yield func(*basev1.LogEntry, error) bool) { yield(nil, lost) }); !errors.Is(err, lost) {
		t.Errorf("a log that breaks off: %v", err)
	}
}
