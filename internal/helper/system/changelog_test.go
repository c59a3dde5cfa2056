package system

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/changerecorder"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/machinetest"
)

// logged is the log as an App gets it, verified.
func (b *base) logged() []*systemv1.ChangeEntry {
	b.t.Helper()
	nonce := bytes.Repeat([]byte{3}, 32)
	var entries [][]byte
	var first, last *systemv1.ChangesHead
	for after := uint64(0); ; after = last.GetLastNumber() {
		reply, err := b.as(caller.Middleware).Do(b.t.Context(), &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ListChanges{
			ListChanges: &systemv1.ListChanges{After: after, Nonce: nonce}}}, nil)
		if err != nil {
			b.t.Fatal(err)
		}
		if last, err = changelog.ReadHead(posture.SigningKey(b.helper.StateKey()), reply.GetChanges().GetHead()); err != nil {
			b.t.Fatal(err)
		}
		if first == nil {
			first = last
		}
		entries = append(entries, reply.GetChanges().GetEntries()...)
		if uint64(len(entries)) >= last.GetLastNumber() {
			break
		}
	}
	view, err := changelog.Verify(changelog.Expectation{Base: posture.SigningKey(b.helper.StateKey()), Nonce: nonce}, first, last, entries)
	if err != nil {
		b.t.Fatal(err)
	}
	return view.Entries
}

// line is an entry as the tests write it.
func line(e *systemv1.ChangeEntry) string {
	who := strings.ToLower(strings.TrimPrefix(e.GetActor().String(), "ACTOR_"))
	if e.GetAppName() != "" {
		who += " " + e.GetAppName()
	}
	text := who + ": " + e.GetWhat()
	if e.GetDetail() != "" {
		text += " " + e.GetDetail()
	}
	if e.GetFailure() != "" {
		text += " FAILED"
	}
	return text
}

func (b *base) lines() []string {
	b.t.Helper()
	var all []string
	for _, e := range b.logged() {
		all = append(all, line(e))
	}
	return all
}

// idOf is the id by which the posture knows an App.
func (b *base) idOf(a *app) string {
	b.t.Helper()
	for _, app := range b.helper.Effective().Apps {
		if app.SigningKey == a.key {
			return app.ID
		}
	}
	b.t.Fatal("no such App")
	return ""
}

// from sends a request as the Middleware does for an App.
func (b *base) from(id string, request *systemv1.SystemRequest) error {
	request.AppId = id
	_, err := b.as(caller.Middleware).Do(b.t.Context(), request, nil)
	return err
}

func restrictRequest(r *systemv1.Restrict) *systemv1.SystemRequest {
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Restrict{Restrict: r}}
}

func recordRequest(what, detail string) *systemv1.SystemRequest {
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_RecordChange{RecordChange: &systemv1.RecordChange{What: what,
		Detail: detail}}}
}

// forge makes a signature one that does not fit.
func forge(sealed []byte) []byte {
	signed := &systemv1.Signed{}
	if err := proto.Unmarshal(sealed, signed); err != nil {
		panic(err)
	}
	signed.Signature[0] ^= 1
	sealed, err := proto.Marshal(signed)
	if err != nil {
		panic(err)
	}
	return sealed
}

func TestTheLogSaysWhoDidWhatAndHowItEnded(t *testing.T) {
	b := newBase(t)
	b.start()
	a := b.pair(b.as(caller.Middleware), "Laptop", owner)
	phone := b.pair(b.as(caller.Middleware), "Phone", basev1.Role_ROLE_OPERATOR)
	a.mustSubmit(open)
	id, phonesID := b.idOf(a), b.idOf(phone)
	before := len(b.logged())
	if err := b.from(id, restrictRequest(&systemv1.Restrict{What: &systemv1.Restrict_EndLease{EndLease: &systemv1.LeaseEnded{
		Kind: "electrum"}}})); err != nil {
		t.Fatal(err)
	}
	// Not Laptop's signature, though it says so: the Middleware's word for who brought it is
	// what is recorded.
	forged := forge(posture.SignDocument(a.draft(false, exposeOwnPort), a.seed))
	if err := b.from(phonesID, submitRequest(forged)); err == nil {
		t.Fatal("a forged document is taken")
	}
	if err := b.from("", recordRequest(changelog.RenameApp, "Phone is Tablet")); err != nil {
		t.Fatal(err)
	}
	b.advance(2 * time.Hour) // SSH's lease
	until(t, "SSH's lease has ended", func() error {
		if b.helper.Effective().SSH != nil {
			return errors.New("it has not")
		}
		return nil
	})
	// A try that nobody confirms.
	if err := a.submitSigned(posture.SignDocument(a.draft(true, exposeOwnPort), a.seed)); err != nil {
		t.Fatal(err)
	}
	b.advance(2 * time.Minute)
	until(t, "the try is undone", func() error {
		if len(b.helper.Effective().Endpoints) > 1 {
			return errors.New("it is not")
		}
		return nil
	})
	b.settled()
	b.world.Fail("reload "+generation.ProxyUnit, errors.New("it does not work"))
	if err := a.submit(exposeOwnPort); err == nil {
		t.Fatal("it was applied")
	}
	b.world.Fail("reload "+generation.ProxyUnit, nil)
	if err := b.restrict(caller.Console, lockdown()); err != nil {
		t.Fatal(err)
	}
	if err := b.local(&systemv1.LocalChange{Change: &systemv1.LocalChange_LiftRestrictions{}, Note: "all is well"}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.as(caller.Console).Do(t.Context(),
		&systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Authority{Authority: &systemv1.AuthorityRequest{
			Verb: &systemv1.AuthorityRequest_Retire{Retire: &systemv1.Retire{SigningKey: phone.key[:]}}}}}, nil); err != nil {
		t.Fatal(err)
	}
	got := b.lines()
	if want := "base: begun revision 0, Apps: 0"; got[0] != want {
		t.Errorf("the first entry is %q, not %q", got[0], want)
	}
	for _, want := range []string{
		"console: open-window", "console: answer-pairing yes", "base: app-enrolled Laptop as owner", "owner Laptop: posture revision 3: The Electrum API will be reachable for 1 day on port 50002. SSH will be switched on for 1 hour for the key"} {
		if !slices.ContainsFunc(got[:before], func(line string) bool { return strings.HasPrefix(line, want) }) {
			t.Errorf("%q is not in %q", want, got[:before])
		}
	}
	want := []string{
		"app Laptop: end-lease electrum",
		"app Phone: posture revision 4 FAILED",
		"app: rename-app Phone is Tablet",
		"base: lease-ended ssh, by the end of its time",
		"owner Laptop: posture revision 4, on trial: The Electrum API will be reachable for 1 day on port 50002.",
		"base: posture-undone revision 4: not confirmed in time",
		"base: posture-undone revision 6: it could not be applied: reload bitbox-base-nginx.service",
		"owner Laptop: posture revision 6: The Electrum API will be reachable for 1 day on port 50002. FAILED",
		"console: lockdown",
		"root: posture restrictions lifted: all is well: Pairing will be possible again when an owner opens a window. The lockdown will be lifted.",
		"base: app-retired Phone",
		fmt.Sprintf("console: retire-key Phone, the key %x", phone.key[:]),
	}
	if !slices.Equal(got[before:], want) {
		t.Errorf("the log has\n%s\nnot\n%s", strings.Join(got[before:], "\n"), strings.Join(want, "\n"))
	}
	for _, e := range b.logged() {
		if e.GetActor() == systemv1.ChangeEntry_ACTOR_OWNER && (e.GetAppId() != id || !bytes.Equal(e.GetSigningKey(), a.key[:])) {
			t.Errorf("%v", e)
		}
	}
	b.stop()
	b.start()
	if again := b.lines(); !slices.Equal(again, got) {
		t.Errorf("after a restart the log has\n%s", strings.Join(again, "\n"))
	}
}

// The attack: somebody who took the Middleware over names an owner in a document that is
// refused. The broken variant believes the envelope.
func TestARefusedSignatureBlamesNobody(t *testing.T) {
	b := newBase(t)
	b.start()
	a := b.pair(b.as(caller.Middleware), "Laptop", owner)
	forged := forge(posture.SignDocument(a.draft(false, exposeOwnPort), a.seed))
	if err := b.from("", submitRequest(forged)); err == nil {
		t.Fatal("a forged document is taken")
	}
	entries := b.logged()
	if last := entries[len(entries)-1]; last.GetActor() != systemv1.ChangeEntry_ACTOR_APP || last.GetAppId() != "" ||
		last.GetSigningKey() != nil {
		t.Errorf("the log blames %v", last)
	}
	// Broken: the envelope is believed, as if nothing had been refused.
	b.helper.changes.Begin(recordSubmit, caller.Middleware, submitRequest(forged)).End(&systemv1.SystemReply{}, nil)
	if entries = b.logged(); !bytes.Equal(entries[len(entries)-1].GetSigningKey(), a.key[:]) {
		t.Error("who believes the envelope does not blame the owner; this attack proves nothing")
	}
}

func TestAMiddlewareThatWasTakenOverDoesNotPushTheLogOut(t *testing.T) {
	b := newBase(t)
	b.start()
	a := b.pair(b.as(caller.Middleware), "Laptop", owner)
	a.mustSubmit(exposeOwnPort)
	before := len(b.logged())
	const flood = 5 * changelog.Places
	for n := range flood {
		if err := b.from(fmt.Sprintf("%016x", n), recordRequest(changelog.RevokeApp, "x")); err != nil {
			t.Fatal(err)
		}
		if err := b.from(fmt.Sprintf("%016x", n), submitRequest([]byte("no document"))); err == nil {
			t.Fatal("it was taken")
		}
	}
	if got := len(b.logged()) - before; got != 2*changelog.Places {
		t.Errorf("%d requests of two kinds are %d entries", flood, got)
	}
	// A signed act, or one by hand, always finds a place.
	a.mustSubmit(func(p *posture.Posture, _ uint64) { p.Extras = nil })
	if err := b.restrict(caller.Console, lockdown()); err != nil {
		t.Fatal(err)
	}
	lines := b.lines()
	if got := lines[len(lines)-2:]; !slices.Equal(got,
		[]string{"owner Laptop: posture revision 3: The Electrum API will be closed on port 50002, and its connections ended.",
			"console: lockdown"}) {
		t.Errorf("%q", got)
	}
	b.advance(changelog.PlaceBack)
	b.helper.changes.RecordSums(false)
	lines = b.lines()
	for i, want := range []string{": 200 revoke-app", ": 200 posture refused"} {
		if got := lines[len(lines)-2+i]; !strings.HasPrefix(got, "base: not-listed 200 since") || !strings.HasSuffix(got, want) {
			t.Errorf("%q", got)
		}
	}
}

// A Middleware that was taken over may restart the machine, and with it the helper.
func TestARestartGivesAFloodNoMorePlaces(t *testing.T) {
	b := newBase(t)
	b.start()
	before := len(b.logged())
	const boots = 4
	for boot := range boots {
		if boot > 0 {
			b.stop()
			b.config.BootID = fmt.Sprint("boot ", boot+1)
			b.start()
		}
		for n := range changelog.Places + 10 {
			if err := b.from(fmt.Sprintf("%016x", n), recordRequest(changelog.RevokeApp, "x")); err != nil {
				t.Fatal(err)
			}
			if err := b.from(fmt.Sprintf("%016x", n), submitRequest([]byte("no document"))); err == nil {
				t.Fatal("it was taken")
			}
		}
	}
	// When the helper ends, the entries listed in sum are one of each kind.
	if got, most := len(b.logged())-before, 2*changelog.Places+2*(boots-1); got > most {
		t.Errorf("a flood over %d boots has %d entries; at most %d are for it", boots, got, most)
	}
}

func TestTheMiddlewareRecordsItsOwnChangesAndNoOthers(t *testing.T) {
	b := newBase(t)
	b.start()
	for what := range changelog.Words {
		err := b.from("", recordRequest(what, "x"))
		if allowed := what == changelog.RenameApp || what == changelog.RevokeApp; (err == nil) != allowed {
			t.Errorf("record %q: %v", what, err)
		}
	}
	for _, who := range []caller.Who{caller.Console, caller.Root} {
		if _, err := b.as(who).Do(t.Context(), recordRequest(changelog.RenameApp, "x"), nil); err == nil {
			t.Errorf("%v may record", who)
		}
	}
	for _, id := range []string{"x", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef0", "../../etc/passwd"} {
		if err := b.from(id, recordRequest(changelog.RenameApp, "x")); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeMalformed}) {
			t.Errorf("the id %q: %v", id, err)
		}
	}
	if err := b.from("", recordRequest(changelog.RenameApp, "a\nroot: reboot \x1b[2J"+strings.Repeat("y", 5000))); err != nil {
		t.Fatal(err)
	}
	lines := b.lines()
	if got := lines[len(lines)-1]; !strings.HasPrefix(got, "app: rename-app a root: reboot  [2Jyyy") || len(got) > 500 {
		t.Errorf("%q", got)
	}
}

// A log that cannot be used is refused, and found by the audit, and left as it is; what closes
// the Base goes on.
func TestADamagedLogIsRefusedLoudlyAndTheBaseClosesAllTheSame(t *testing.T) {
	b := newBase(t)
	var journal bytes.Buffer
	b.start()
	a := b.pair(b.as(caller.Middleware), "Laptop", owner)
	a.mustSubmit(exposeOwnPort)
	b.stop()
	path := filepath.Join(b.directory, changerecorder.File)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func() error{
		"a bit":         func() error { b := slices.Clone(whole); b[len(b)/2] ^= 1; return os.WriteFile(path, b, 0o600) },
		"gone":          func() error { return os.Remove(path) },
		"an older copy": func() error { return os.WriteFile(path, whole[:len(whole)/2], 0o600) },
		"a folder":      func() error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, whole, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := damage(); err != nil {
				t.Fatal(err)
			}
			damaged, _ := os.ReadFile(path)
			journal.Reset()
			b.config.Logger = slog.New(slog.NewTextHandler(&journal, nil))
			b.start()
			_, err := b.as(caller.Middleware).Do(t.Context(), &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ListChanges{
				ListChanges: &systemv1.ListChanges{Nonce: make([]byte, 32)}}}, nil)
			if !errors.Is(err, &helperclient.Error{Code: helperclient.CodeInternal}) {
				t.Errorf("list: %v", err)
			}
			if err := b.restrict(caller.Middleware, lockdown()); err != nil && !errors.Is(err, &helperclient.Error{Code: helperclient.CodeNothing}) {
				t.Errorf("the Base does not close: %v", err)
			}
			reply, err := b.as(caller.Root).Do(t.Context(),
				&systemv1.SystemRequest{Verb: &systemv1.SystemRequest_RunAudit{RunAudit: &systemv1.RunAudit{}}}, nil)
			if err != nil || len(reply.GetAudit().GetFindings()) != 1 || reply.GetAudit().GetFindings()[0].GetId() != "changes-damaged" {
				t.Errorf("the audit has found %v, %v", reply, err)
			}
			b.stop()
			if !strings.Contains(journal.String(), "the log of changes cannot be used") ||
				!strings.Contains(journal.String(), "a change is not in the log of changes") {
				t.Errorf("the journal says\n%s", journal.String())
			}
			if now, _ := os.ReadFile(path); !bytes.Equal(now, damaged) {
				t.Error("the file was changed")
			}
			_ = os.Remove(path)
		})
	}
}

// records records changes until it is killed, and says so after each answer.
func records() {
	h, err := Open(goldenConfig(machinetest.New(os.Getenv(directoryVariable)), os.Getenv(directoryVariable)))
	for n := 1; err == nil; n++ {
		request := recordRequest(changelog.RenameApp, fmt.Sprint(n))
		if _, err = (helperclient.Client{Port: h.Port(caller.Middleware)}).Do(context.Background(), request, nil); err == nil {
			fmt.Println(n)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func TestAKilledHelperHasRecordedAllThatItHasAnswered(t *testing.T) {
	for _, after := range []int{1, 5, 20, 40} {
		b := newBase(t)
		command := exec.Command(os.Args[0])
		command.Env = append(os.Environ(), roleVariable+"=records", directoryVariable+"="+b.directory)
		out, err := command.StdoutPipe()
		if err == nil {
			err = command.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		answered := 0
		for answered < after {
			if _, err := fmt.Fscanln(out, &answered); err != nil {
				t.Fatal(err)
			}
		}
		_ = command.Process.Kill()
		for { // what it has answered by then
			var n int
			if _, err := fmt.Fscanln(out, &n); err != nil {
				break
			}
			answered = n
		}
		_ = command.Wait()
		b.start()
		found := 0
		for _, e := range b.logged() {
			if e.GetWhat() == changelog.RenameApp {
				if found++; e.GetDetail() != fmt.Sprint(found) {
					t.Errorf("%v is number %d", e, found)
				}
			}
		}
		if places := min(answered, changelog.Places); found < places {
			t.Errorf("of %d answered changes %d are in the log", answered, found)
		}
		b.stop()
	}
}

func TestTheEnvelopeOfAnythingIsReadOrNot(t *testing.T) {
	document := &systemv1.PostureDocument{}
	if changerecorder.OpenSigned(bytes.Repeat([]byte{1}, posture.MaxDocumentSize+1), document) ||
		changerecorder.OpenSigned([]byte("x"), document) {
		t.Error("it is read")
	}
	signed, err := proto.Marshal(&systemv1.Signed{Message: []byte("x")})
	if err != nil || changerecorder.OpenSigned(signed, document) {
		t.Error("it is read")
	}
}
