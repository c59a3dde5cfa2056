//go:build linux

package owner

import (
	"crypto/ed25519"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/releases"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/appliancetest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/machinetest"
)

// patience is how long a step with a real Base may take.
const patience = time.Minute

// home is an Owner, and a real appliance.
type home struct {
	*Owner
	appliance *appliancetest.Appliance
	t         *testing.T
}

func newHome(t *testing.T) *home {
	t.Helper()
	base, err := appliancetest.Start(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := base.Stop(); err != nil {
			t.Error(err)
		}
	})
	app, err := client.New(client.Options{Dir: t.TempDir(), Name: "laptop", NoDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	software := func(*client.RunningImage) string { return "" }
	known := Releases{t.TempDir(), func() (ed25519.PublicKey, error) { return machinetest.ReleaseKey(), nil }}
	o := New(Options{Source: NewSource(app, "", "", software, known), CallTime: 20 * time.Second, PairTime: 3 * time.Minute})
	t.Cleanup(runs(o))
	return &home{o, base, t}
}

// until waits for a state, woken by each change.
func (h *home) until(what string, is func(State) bool) State {
	h.t.Helper()
	wake, done := h.Subscribe()
	defer done()
	for late := time.After(patience); ; {
		s := h.State()
		if is(s) {
			return s
		}
		select {
		case <-wake:
		case <-late:
			h.t.Fatalf("never %s: %+v", what, s.Deeds)
		}
	}
}

// reads begins a deed, and returns it once its question could be read.
func (h *home) reads(base string, d Deed) DeedState {
	h.t.Helper()
	number, err := h.Do(base, d)
	if err != nil {
		h.t.Fatal(err)
	}
	var shown DeedState
	h.until("a question", func(s State) bool {
		shown, _ = s.Deed(number)
		if !shown.Ended.IsZero() {
			h.t.Fatalf("%s has ended: %+v", d.Kind, shown)
		}
		return shown.Question != nil
	})
	time.Sleep(time.Until(shown.Question.Ready))
	return shown
}

// over waits until a deed has ended.
func (h *home) over(number uint64) (d DeedState) {
	h.t.Helper()
	h.until("an end", func(s State) bool {
		d, _ = s.Deed(number)
		return !d.Ended.IsZero()
	})
	return d
}

// tells does a deed that asks nothing.
func (h *home) tells(base string, d Deed) DeedState {
	h.t.Helper()
	number, err := h.Do(base, d)
	if err != nil {
		h.t.Fatal(err)
	}
	return h.over(number)
}

// does does a deed with a yes to each question that is the one expected.
func (h *home) does(base string, d Deed) DeedState {
	h.t.Helper()
	shown := h.reads(base, d)
	if err := h.Answer(shown.Number, shown.Question.ID, Answer{Yes: true}); err != nil {
		h.t.Fatal(err)
	}
	ended := h.over(shown.Number)
	if ended.Err != nil {
		h.t.Fatalf("%s: %v", d.Kind, ended.Err)
	}
	return ended
}

// pairs pairs this App, and returns the id of the Base once it has answered.
func (h *home) pairs() string {
	h.t.Helper()
	number, err := h.Do("", Deed{Kind: Pair, Addresses: []string{h.appliance.Address()}})
	if err != nil {
		h.t.Fatal(err)
	}
	var d DeedState
	h.until("a request number", func(s State) bool {
		d, _ = s.Deed(number)
		return d.RequestNumber != ""
	})
	accepted := make(chan error, 1)
	request := d.RequestNumber
	go func() { accepted <- h.appliance.Let(h.t.Context(), request, basev1.Role_ROLE_UNSPECIFIED) }()
	h.until("a code", func(s State) bool {
		d, _ = s.Deed(number)
		return d.Question != nil
	})
	if d.Question.Kind != Compare || len(d.Question.Code.Digits) != len("123 456") {
		h.t.Fatalf("it asks %+v", d.Question)
	}
	time.Sleep(time.Until(d.Question.Ready))
	if err := errors.Join(h.Answer(number, d.Question.ID, Answer{Yes: true}), <-accepted); err != nil {
		h.t.Fatal(err)
	}
	if d = h.over(number); d.Made == nil || d.Err != nil {
		h.t.Fatalf("the pairing: %+v", d)
	}
	id := ""
	h.until("connected", func(s State) bool {
		for _, b := range s.Bases {
			if b.Connection == Connected && b.Look.Access != nil {
				id = b.ID()
			}
		}
		return id != ""
	})
	return id
}

const aKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0rbZ1JUTRXwqxhVLuYEF2pBcRYBw3h5KxYRjMTTqG1 anna"

func TestARealBaseIsPairedOpenedClosedAndLockedDown(t *testing.T) {
	h := newHome(t)
	id := h.pairs()
	base := func(s State) Base {
		b, _ := s.Base(id)
		return b
	}

	h.does(id, Deed{Kind: OpenWindow})
	h.until("an open window", func(s State) bool { return base(s).Look.Window.GetOpen() })
	h.does(id, Deed{Kind: CloseWindow})
	h.until("a closed window", func(s State) bool { return !base(s).Look.Window.GetOpen() })

	// What this App opens it confirms by itself; the steps say so.
	if d := h.does(id, Deed{Kind: AddSSHKeys, Text: aKey}); !strings.Contains(d.Result.String(), "signed") || len(d.Steps) == 0 {
		t.Errorf("adding a key: %+v", d)
	}
	h.does(id, Deed{Kind: EnableSSH, For: 10 * time.Minute})
	h.until("SSH", func(s State) bool {
		return base(s).Look.Access.SSH && slices.Equal(base(s).Look.Access.Keys, []string{"anna"})
	})
	h.does(id, Deed{Kind: EndLease, Subject: "ssh"})
	h.until("no SSH", func(s State) bool { return !base(s).Look.Access.SSH })
	h.does(id, Deed{Kind: Rename, Text: "kitchen"})
	h.until("the new name", func(s State) bool { return base(s).Look.Info.GetName() == "kitchen" })

	h.does(id, Deed{Kind: Lockdown})
	h.until("a lockdown", func(s State) bool { return base(s).Look.Access.Lockdown })
	h.does(id, Deed{Kind: Unlock})
	h.until("no lockdown", func(s State) bool { return !base(s).Look.Access.Lockdown })

	log := Want{Part: Changes}
	h.Want(id, log)
	s := h.until("the log of changes", func(s State) bool { return base(s).Parts[log].Changes != nil })
	if log := base(s).Parts[log].Changes; log.Last < 6 {
		t.Errorf("the log has %d entries", log.Last)
	}
}

func TestALogOfARealBaseIsFollowed(t *testing.T) {
	h := newHome(t)
	id := h.pairs()
	logs := Want{Part: Logs, Subject: "electrs"}
	says := func(texts ...string) {
		t.Helper()
		for _, text := range texts {
			if err := h.appliance.Services.Log("electrs", text, 6); err != nil {
				t.Fatal(err)
			}
		}
		last := texts[len(texts)-1]
		h.until(last, func(s State) bool {
			b, _ := s.Base(id)
			lines := b.Parts[logs].Lines
			return len(lines) > 0 && lines[len(lines)-1].GetText() == last
		})
	}
	h.Want(id, logs)
	says("the first line")
	says("the second line")
	var many []string
	for n := range 2 * logLines {
		many = append(many, strconv.Itoa(n))
	}
	says(many...)
	if b, _ := h.State().Base(id); len(b.Parts[logs].Lines) != logLines {
		t.Errorf("%d lines are kept", len(b.Parts[logs].Lines))
	}
}

func TestAtARealBaseAnAnswerIsForTheWordsThatWereRead(t *testing.T) {
	h := newHome(t)
	id := h.pairs()
	h.does(id, Deed{Kind: AddSSHKeys, Text: aKey})

	// The words change: another deed asks in place of the one that was read.
	read := h.reads(id, Deed{Kind: EnableSSH, For: 10 * time.Minute})
	h.Stop(read.Number)
	if d := h.over(read.Number); d.Leaves.String() != "Nothing was changed." {
		t.Errorf("it leaves %q", d.Leaves)
	}
	now := h.reads(id, Deed{Kind: EnableSSH, For: 7 * 24 * time.Hour})
	for _, deed := range []uint64{read.Number, now.Number} {
		if err := h.Answer(deed, read.Question.ID, Answer{Yes: true}); !errors.Is(err, ErrVoid) {
			t.Errorf("a yes to the words before: %v", err)
		}
	}
	if err := h.Answer(now.Number, now.Question.ID, Answer{}); err != nil {
		t.Fatal(err)
	}
	h.over(now.Number)
	h.Refresh(id, false)
	before := time.Now()
	s := h.until("asked again", func(s State) bool {
		b, _ := s.Base(id)
		return b.At.After(before)
	})
	if b, _ := s.Base(id); b.Look.Access.SSH {
		t.Error("SSH is on, and nobody has said yes")
	}
}

// serve has a server give the list of releases with an image of this version, and a file as that image.
func serve(t *testing.T, version string, image []byte) (address string) {
	t.Helper()
	feed, err := machinetest.Feed(version, time.Now().Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	files := http.NewServeMux()
	for path, content := range map[string][]byte{"/feed": feed, "/image.release": image} {
		files.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) })
	}
	server := httptest.NewServer(files)
	t.Cleanup(server.Close)
	return server.URL + "/feed"
}

func TestARealBaseIsUpdatedByTheList(t *testing.T) {
	h := newHome(t)
	if err := h.appliance.Software.BecomeImage(); err != nil {
		t.Fatal(err)
	}
	id := h.pairs()
	software := Want{Part: Software}
	h.Want(id, software)
	part := func(s State) Answered {
		b, _ := s.Base(id)
		return b.Parts[software]
	}
	if a := part(h.until("what runs", func(s State) bool { return part(s).Update != nil })); a.Newer != nil || a.ListFrom != "" {
		t.Errorf("without a list there is %+v, from %q", a.Newer, a.ListFrom)
	}
	if d := h.tells(id, Deed{Kind: CheckReleases}); !errors.Is(d.Err, releases.ErrNoAddress) {
		t.Errorf("without an address: %v", d.Err)
	}
	address := serve(t, "1.2", machinetest.ImageRelease("1.2"))
	const isNew = "New: version 1.2, which closes a security hole: Closes a hole."
	if d := h.tells(id, Deed{Kind: CheckReleases, Text: address}); d.Result.String() != isNew {
		t.Errorf("the list: %s (%v)", d.Result, d.Err)
	}
	a := part(h.until("a newer version", func(s State) bool { return part(s).Newer != nil }))
	if a.Newer.Version != "1.2" || !a.Newer.ClosesHole || a.ListFrom != address {
		t.Errorf("it knows %+v, from %q", a.Newer, a.ListFrom)
	}
	d := h.does(id, Deed{Kind: InstallNewer})
	if d.Result.String() != "The Base now runs version 1.2 and is healthy." || d.Total != uint64(len(machinetest.ImageRelease("1.2"))) {
		t.Errorf("%s, %d bytes", d.Result, d.Total)
	}
	if d := h.tells(id, Deed{Kind: CheckReleases}); d.Result.String() != "Version 1.2 is the newest one." {
		t.Errorf("the same list again: %s (%v)", d.Result, d.Err)
	}
	if d := h.tells(id, Deed{Kind: InstallNewer}); !errors.Is(d.Err, client.ErrNoChange) {
		t.Errorf("nothing newer: %v", d.Err)
	}
}

// The server of the list is anybody's: a file that is another release than the signed list says, however
// well it is signed itself, does not get to the Base.
func TestAnotherReleaseThanTheListSaysIsNotBrought(t *testing.T) {
	h := newHome(t)
	if err := h.appliance.Software.BecomeImage(); err != nil {
		t.Fatal(err)
	}
	id := h.pairs()
	for name, c := range map[string]struct {
		file []byte
		want error
	}{
		"an older one": {machinetest.ImageRelease("1.1"), client.ErrRelease},
		"a page":       {make([]byte, len(machinetest.ImageRelease("1.2"))), client.ErrRelease},
		"a short one":  {[]byte("short"), releases.ErrFetch},
	} {
		if d := h.tells(id, Deed{Kind: CheckReleases, Text: serve(t, "1.2", c.file)}); d.Err != nil {
			t.Fatal(d.Err)
		}
		shown := h.reads(id, Deed{Kind: InstallNewer})
		if err := h.Answer(shown.Number, shown.Question.ID, Answer{Yes: true}); err != nil {
			t.Fatal(err)
		}
		if d := h.over(shown.Number); !errors.Is(d.Err, c.want) {
			t.Errorf("%s: %v", name, d.Err)
		}
	}
	if d := h.tells(id, Deed{Kind: CheckReleases}); d.Err != nil || !strings.HasPrefix(d.Result.String(), "New: ") {
		t.Errorf("afterwards: %s, %v", d.Result, d.Err)
	}
	if d := h.tells(id, Deed{Kind: CheckReleases, Text: "file:///etc/passwd"}); !errors.Is(d.Err, releases.ErrAddress) {
		t.Errorf("a file of this computer: %v", d.Err)
	}
}

// A check asks nothing, changes nothing, and says what keeps a wallet from the Base.
func TestARealBaseIsCheckedAsAWalletDoes(t *testing.T) {
	h := newHome(t)
	id := h.pairs()
	home := client.Opening{UntilClosed: true, From: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")}}
	for _, c := range []struct {
		before Deed
		want   string
	}{
		{Deed{}, "a wallet cannot use this Base: the Electrum API is closed; to open it: bitbox-app expose electrum --until-closed"},
		{Deed{Kind: Expose, Subject: WalletKind, Opening: client.Opening{UntilClosed: true}}, "does not answer; a firewall"},
		{Deed{Kind: Expose, Subject: WalletKind, Opening: home},
			"this computer is 127.0.0.1, and the API is open from 192.168.1.0/24 alone"},
	} {
		if c.before.Kind != 0 {
			h.does(id, c.before)
		}
		d := h.tells(id, Deed{Kind: CheckWallet})
		if !errors.Is(d.Err, ErrWallet) || !strings.Contains(client.Explain(d.Err), c.want) || !d.Leaves.Empty() {
			t.Errorf("it says %v, not %q", d.Err, c.want)
		}
		said := words.German.Problem(d.Err)
		if said.Lang != "de" || !strings.HasPrefix(said.Text, "Eine Wallet kann diese Base nicht benutzen: ") {
			t.Errorf("in German it says %+v", said)
		}
	}
}

// typed does a deed whose question is a sentence, and types this in its place.
func (h *home) typed(base string, d Deed, text string) DeedState {
	h.t.Helper()
	shown := h.reads(base, d)
	if shown.Question.Kind != TypeSentence {
		h.t.Fatalf("%s asks %+v", d.Kind, shown.Question)
	}
	if text == "" {
		text = shown.Question.Sentence.String()
	}
	if err := h.Answer(shown.Number, shown.Question.ID, Answer{Yes: true, Text: text}); err != nil {
		h.t.Fatal(err)
	}
	return h.over(shown.Number)
}

// A deed that cannot be undone needs a sentence that is typed; another one does nothing.
func TestAtARealBaseWhatIsForGoodIsTyped(t *testing.T) {
	h := newHome(t)
	h.appliance.Machine.SetDisks(&basev1.Disk{Name: "sda", Id: strings.Repeat("a1", 16), Model: "CT2000MX500SSD1", SerialEnd: "A1B2",
		SizeBytes: 2_000_398_934_016, Bus: "sata", Content: "an ext4 file system"})
	id := h.pairs()
	disk := Deed{Kind: UseDisk, Subject: "sda"}
	for _, d := range []Deed{disk, {Kind: FactoryReset}, {Kind: Resync}} {
		if got := h.typed(id, d, "yes"); !errors.Is(got.Err, client.ErrNotApproved) {
			t.Errorf("%s with another sentence: %v", d.Kind, got.Err)
		}
	}
	if d := h.tells(id, Deed{Kind: UseDisk, Subject: "sdb"}); !errors.Is(d.Err, client.ErrInvalid) {
		t.Errorf("a disk that is not there: %v", d.Err)
	}
	asked := h.reads(id, disk)
	q := asked.Question
	if q.Sentence.String() != "erase everything on sda" || !strings.Contains(q.Changes[0].Text, "Everything on it will be lost: an ext4") {
		t.Errorf("it asks %+v", q)
	}
	h.Stop(asked.Number)
	h.over(asked.Number)
	d := h.typed(id, disk, "")
	if d.Err != nil || d.Result.String() != "CT2000MX500SSD1 …A1B2 is being prepared; the node starts again with it." {
		t.Errorf("the disk: %s, %v", d.Result, d.Err)
	}
	for _, second := range []Answer{{}, {Yes: true, Text: "no"}} { // what is typed at the question about the chain
		asked := h.reads(id, Deed{Kind: FactoryReset, Erase: true})
		typed := words.German.Said(asked.Question.Sentence).Text
		if err := h.Answer(asked.Number, asked.Question.ID, Answer{Yes: true, Text: typed}); err != nil {
			t.Fatal(err)
		}
		h.until("the second question", func(s State) bool {
			asked, _ = s.Deed(asked.Number)
			return asked.Question != nil && asked.Question.Sentence.String() == EraseWords().String() || !asked.Ended.IsZero()
		})
		time.Sleep(time.Until(asked.Question.Ready))
		if err := h.Answer(asked.Number, asked.Question.ID, second); err != nil {
			t.Fatal(err)
		}
		if got := h.over(asked.Number); !errors.Is(got.Err, client.ErrNotApproved) {
			t.Fatalf("the Base was wiped after %+v: %v", second, got.Err)
		}
	}
	d = h.typed(id, Deed{Kind: FactoryReset}, "")
	if d.Err != nil || !strings.HasSuffix(d.Result.String(), "is being wiped and restarts as new.") {
		t.Errorf("the reset: %s, %v", d.Result, d.Err)
	}
}
