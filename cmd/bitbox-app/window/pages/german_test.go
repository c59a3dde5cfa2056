package pages

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// filler stands in each place that a Base, an App or a disk fills: a word of no language.
const filler = "Zzyzx"

// englishWords are frequent in English and not words of German.
var englishWords = strings.Fields(`the and of is are will be not with for to from this that has have it its by can been when your you
	which or does cannot no yes than instead now again only there their they would could should until while after before because
	change changes closed open opened reach reached machine service services keys wait waiting checked signed failed done`)

// spoken are the attributes that a person reads or hears.
var spoken = []string{"aria-label", "placeholder", "title", "alt", "data-spoken", "data-label", "data-stale", "data-idle", "data-left",
	"data-ended", "data-gone", "data-locked", "data-foreign", "data-changed", "data-early", "data-copied", "data-beside"}

// said are the texts of a page that are in its language: without what is marked as another one, and without what a
// computer reads.
func said(n *html.Node) (texts []string) {
	if n.Type == html.TextNode {
		if text := strings.Join(strings.Fields(n.Data), " "); text != "" {
			texts = append(texts, text)
		}
	}
	if lang := attribute(n, "lang"); n.Type == html.ElementNode &&
		(slices.Contains([]string{"code", "script"}, n.Data) || n.Data != "html" && lang != "" && lang != "de") {
		return nil
	}
	for _, name := range spoken {
		if text := attribute(n, name); text != "" {
			texts = append(texts, text)
		}
	}
	for child := range n.ChildNodes() {
		texts = append(texts, said(child)...)
	}
	return texts
}

var word = regexp.MustCompile(`\pL+`)

// quoted is what a page marks as the words of somebody else.
var quoted = regexp.MustCompile(`„[^“]*“`)

// alike are texts of more than one word that are the same in both languages.
var alike = regexp.MustCompile(`^(BitBox Base|Mempool|Updates · \w+|Bitcoin Core( 30\.0)?|ssh-ed25519 AAAA… name@computer|.*\d+ (GiB|MiB|min|h|TB|GB).*|[\pL-]+/[\pL-]+|SHA256:.*|` +
	`Zzyzx.*|Electrum|bitbox-.*|[\w.@-]+)$`)

// englishIn finds what is English among the texts of a page; other are those of the same page in English.
func englishIn(texts, other []string) (found []string) {
	for _, text := range texts {
		all := word.FindAllString(quoted.ReplaceAllString(strings.ReplaceAll(text, "--no-browser", ""), ""), -1)
		english := slices.ContainsFunc(all, func(w string) bool { return slices.Contains(englishWords, strings.ToLower(w)) })
		if english || len(all) > 1 && slices.Contains(other, text) && !alike.MatchString(text) {
			found = append(found, text)
		}
	}
	return found
}

// kindsOfErrors are those of package client.
var kindsOfErrors = []error{
	client.ErrNoSuchBase, client.ErrSeveralBases, client.ErrUnreachable, client.ErrNotABase, client.ErrSilent, client.ErrRevoked,
	client.ErrPairAgain, client.ErrNotAccepted, client.ErrRejected, client.ErrInterference, client.ErrTooManyReveals, client.ErrInvalid,
	client.ErrStorage, client.ErrLost, client.ErrNoRights, client.ErrDenied, client.ErrNotFound, client.ErrNotNow, client.ErrConflict,
	client.ErrTooMuch, client.ErrUnknownToBase, client.ErrBaseFailed, client.ErrNoSuchKey, client.ErrNoSuchApp, client.ErrLyingBase,
	client.ErrNotApproved, client.ErrNoChange, client.ErrBusy, client.ErrUndone, client.ErrUnsettled, client.ErrUpdateUndone,
	client.ErrUpdateUnknown, client.ErrRelease, client.ErrOtherSoftware, client.ErrSecondBoard, client.ErrFileExists,
	owner.ErrVoid, owner.ErrEarly, context.Canceled, context.DeadlineExceeded,
}

// sayings are the sentences with which package owner tells how a deed does: the keys in its source that begin with
// this, each with an argument in its place.
func sayings(t *testing.T, begin string) (all []words.Said) {
	t.Helper()
	files, err := filepath.Glob("../../owner/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range regexp.MustCompile(`words\.Saying\("(`+begin+`\.[a-z.-]+)"`).FindAllSubmatch(source, -1) {
			all = append(all, words.Saying(string(key[1]), filler, filler))
		}
	}
	if len(all) == 0 {
		t.Fatalf("package owner says nothing that begins with %q", begin)
	}
	return all
}

// unknown is a text of a Base that no language has.
const unknown = "the brass is not polished, and it should be"

// tells gives a text to each place that a Base fills with a text for people.
func tells(b owner.Base, text string) owner.Base {
	b.Events = nil
	b.Findings = []*basev1.Finding{{Id: "odd", Title: text, Expected: text, Found: text, Why: text, Fix: text, Fixable: true}}
	b.Look.Info.DiskTroubles = []string{text}
	for _, s := range b.Look.Services {
		s.Reason = text
	}
	b.Look.Node.Reason, b.Look.Node.Warnings, b.Look.Node.WalletServer.Reason = text, []string{text}, text
	for _, part := range b.Parts {
		if part.Disks != nil {
			part.Disks.Chain = &basev1.ChainDisk{State: basev1.ChainDisk_STATE_TROUBLE, Trouble: text}
		}
		for n, d := range part.Disks.GetDisks() {
			d.Content, d.Health = text, &basev1.DiskHealth{Verdict: basev1.DiskHealth_VERDICT_FAILING, Reason: text}
			if n == 0 {
				d.Refused = text
			}
		}
		if part.Update != nil {
			part.Update.DebianUnknown, part.Update.Update.Step, part.Update.Update.Reason, part.Update.Update.AwaitsApp = text, text, text, false
		}
		if part.Changes != nil {
			for _, e := range part.Changes.Entries {
				e.Detail, e.Failure = text, text
			}
		}
	}
	return b
}

// eventOfEachKind fills each event of the API: a text for people is one that no language has, and any other a name.
func eventOfEachKind() (all []owner.Event) {
	kinds := (&basev1.Event{}).ProtoReflect().Descriptor().Oneofs().ByName("event").Fields()
	for n := range kinds.Len() {
		event := &basev1.Event{Time: timestamppb.New(now)}
		fill(event.ProtoReflect().Mutable(kinds.Get(n)).Message(), 3)
		all = append(all, owner.Event{First: now, At: now, Times: 1, Event: event})
	}
	return all
}

// texts are the fields of events that have a text for people.
var texts = []protoreflect.Name{"reason", "trouble", "note", "by", "changes", "title"}

// fill gives a value to each field of a message, this deep.
func fill(m protoreflect.Message, deep int) {
	fields := m.Descriptor().Fields()
	for n := range fields.Len() {
		f := fields.Get(n)
		var value protoreflect.Value
		switch {
		case f.Kind() == protoreflect.MessageKind && deep == 0:
			continue
		case f.Kind() == protoreflect.MessageKind && f.IsList():
			fill(m.Mutable(f).List().AppendMutable().Message(), deep-1)
			continue
		case f.Kind() == protoreflect.MessageKind:
			fill(m.Mutable(f).Message(), deep-1)
			continue
		case f.Kind() == protoreflect.StringKind && slices.Contains(texts, f.Name()):
			value = protoreflect.ValueOfString(unknown)
		case f.Kind() == protoreflect.StringKind:
			value = protoreflect.ValueOfString(filler)
		case f.Kind() == protoreflect.Uint32Kind:
			value = protoreflect.ValueOfUint32(3)
		case f.Kind() == protoreflect.Uint64Kind:
			value = protoreflect.ValueOfUint64(3)
		case f.Kind() == protoreflect.BoolKind:
			value = protoreflect.ValueOfBool(true)
		default:
			continue
		}
		if f.IsList() {
			m.Mutable(f).List().Append(value)
		} else {
			m.Set(f, value)
		}
	}
}

// germanStates are Bases, and deeds of each kind: with their question, their steps, and each end.
func germanStates(t *testing.T) map[string]owner.State {
	t.Helper()
	bases := map[string]owner.Base{"told": tells(fullBase(basev1.Role_ROLE_OWNER, filler), unknown)}
	known := func(b owner.Base) owner.Base {
		b.Findings = []*basev1.Finding{
			{Id: "entry-silent", Severity: basev1.Finding_SEVERITY_CRITICAL, Title: "Silent", Expected: "x", Found: "y", Fixable: true},
			{Id: "password", Severity: basev1.Finding_SEVERITY_WARNING, Title: "A password"},
			{Id: "unchecked-disks", Severity: basev1.Finding_SEVERITY_INFO, Title: "Not checked"},
		}
		b.Events = nil // further down
		return b
	}
	for _, role := range roles {
		b := known(fullBase(role, filler))
		for n, name := range []string{"firewall", "nginx", "middleware", "fail2ban", "bitcoin"} {
			b.Look.Services[n].Name = name
		}
		bases["base-"+role.Name()] = b
	}
	b := known(fullBase(basev1.Role_ROLE_OWNER, filler))
	lost, lie, locked, trying, bare, failed, asked := b, b, b, b, b, b, b
	lost.Connection, lost.Err, lost.Again = owner.Lost, context.DeadlineExceeded, now.Add(time.Minute)
	lie.Look.Access, lie.Look.Lie = nil, &client.Error{Kind: client.ErrLyingBase, Text: "it lies"}
	access := *b.Look.Access
	access.Lockdown = true
	locked.Look.Access = &access
	try := *b.Look.Access
	try.Trying, try.UndoneIn, try.Tried = true, time.Minute, []client.PostureChange{{Kind: "pairing.open"}}
	trying.Look.Access = &try
	bare.Look, bare.Findings, bare.HasAudit, bare.Parts = owner.Look{Info: b.Look.Info}, nil, false, nil
	failed.Parts, failed.AuditErr = map[owner.Want]owner.Answered{}, client.ErrBaseFailed
	for want := range b.Parts {
		failed.Parts[want] = owner.Answered{At: now, Err: client.ErrLost}
	}
	asked.Parts = nil
	for name, b := range map[string]owner.Base{"well": known(wellBase()), "open": known(openBase()), "tried": trying, "lost": lost, "lie": lie,
		"locked": locked, "bare": bare, "failed": failed, "asked": asked, "never": lostBase()} {
		bases[name] = b
	}
	for n, events := range slices.Collect(slices.Chunk(eventOfEachKind(), shownEvents)) {
		b := known(wellBase())
		b.Events = events
		bases[fmt.Sprint("events-", n)] = b
	}
	all := map[string]owner.State{"empty": {}, "search": {SearchErr: client.ErrUnreachable, StorageErr: client.ErrStorage,
		UnstoredErr: client.ErrStorage,
		Nearby: []owner.Announced{
			{Nearby: client.Nearby{Name: filler, Addresses: []string{"192.168.1.20:8845"}, ProtocolVersion: 1, PairingOpen: true}},
			{ID: 1, Nearby: client.Nearby{Name: filler, Addresses: []string{"192.168.1.21:8845"}, ProtocolVersion: 1}},
			{ID: 2, Nearby: client.Nearby{Name: filler, ProtocolVersion: 9}},
		}}}
	for name, b := range bases {
		all[name] = owner.State{Bases: []owner.Base{b}}
	}
	deed := func(name string, d owner.DeedState) {
		d.Number, d.Began = 1, now
		if d.Deed.Kind != owner.Pair {
			d.Base = b.ID()
		}
		all[name] = owner.State{Bases: []owner.Base{b}, Deeds: []owner.DeedState{d}}
	}
	for _, kind := range owner.Kinds() {
		d := owner.Deed{Kind: kind, Subject: "ssh", Text: filler}
		changes := []client.PostureChange{d.Change()}
		switch {
		case kind == owner.Fix:
			d.Subject = "entry-silent"
			changes[0] = d.Change()
		case changes[0].Text == "": // package client describes it
			changes[0] = client.PostureChange{Kind: "pairing.close"}
		}
		deed("ask-"+kind.String(), owner.DeedState{Deed: d, Question: &owner.Question{ID: 1, Kind: owner.Consent, Changes: changes}})
		deed("under-"+kind.String(), owner.DeedState{Deed: d, Agreed: true, RequestNumber: "731 204", Sent: 1, Total: 2})
	}
	for n, change := range []client.PostureChange{owner.RebuildCost(false), owner.RebuildCost(true), owner.SoftwareChange("1", "2", false),
		owner.SoftwareChange("1", "2", true)} {
		deed(fmt.Sprint("change-", n), owner.DeedState{Deed: owner.Deed{Kind: owner.Install}, Question: &owner.Question{ID: 1,
			Kind: owner.TypeSentence, Sentence: words.Plain(filler), Changes: []client.PostureChange{change}}})
	}
	for n, sentence := range []words.Said{owner.BtcdSentence(), owner.EraseWords(), owner.DiskUse{Disk: &basev1.Disk{Name: "sda"}}.Sentence(),
		owner.DiskUse{Disk: &basev1.Disk{Name: "sda"}, Erase: true}.Sentence()} {
		deed(fmt.Sprint("type-", n), owner.DeedState{Deed: owner.Deed{Kind: owner.UseDisk}, Question: &owner.Question{ID: 1,
			Kind: owner.TypeSentence, Sentence: sentence, Changes: []client.PostureChange{owner.ChainCost()}}})
	}
	for _, kind := range []owner.QuestionKind{owner.Compare, owner.TellWords, owner.TypeWords} {
		deed(fmt.Sprint("question-", kind), owner.DeedState{Deed: owner.Deed{Kind: owner.Pair}, Question: &owner.Question{ID: 1, Kind: kind,
			Code: client.Code{Digits: "482 913", Words: "lusab-babad", BaseName: filler, AppName: filler, Role: basev1.Role_ROLE_OWNER},
			App:  client.NewApp{Name: filler, Problem: unknown}}})
	}
	deed("paired", owner.DeedState{Deed: owner.Deed{Kind: owner.Pair}, Ended: now, Made: &client.Base{Name: filler, PublicKey: [32]byte{1}}})
	steps := sayings(t, "steps")
	for _, name := range []string{"render", "write", "switch", "stop: ssh.service", "cut: at once", "validate: nginx.service",
		"reload: nginx.service", "start: ssh.service", "verify", "switch back"} {
		steps = append(steps, words.ApplyStep(name))
	}
	for phase := range basev1.Update_Phase_name {
		steps = append(steps, words.UpdateStep(&basev1.Update{Phase: basev1.Update_Phase(phase), Step: "look whether the Base is well"}))
	}
	steps = append(steps, words.ApplyStep(unknown), words.ByBase(unknown), words.UpdateStep(&basev1.Update{Step: unknown, Reason: unknown}))
	deed("steps", owner.DeedState{Deed: owner.Deed{Kind: owner.Install}, Agreed: true, Steps: steps})
	for n, result := range sayings(t, "done") {
		deed(fmt.Sprint("done-", n), owner.DeedState{Deed: owner.Deed{Kind: owner.Reboot}, Ended: now, Result: result})
	}
	later := []words.Said{words.ByBase(unknown), words.Saying("values.up.failed", words.ByBase(unknown))}
	for state := range basev1.Node_State_name {
		later = append(later, words.Saying("values.up.is", basev1.Node_State(state)))
	}
	for n, reason := range later {
		deed(fmt.Sprint("later-", n), owner.DeedState{Deed: owner.Deed{Kind: owner.ChangeNode}, Ended: now,
			Result: words.Saying("done.node-settings.later", reason)})
	}
	for n, leaves := range sayings(t, "leaves") {
		deed(fmt.Sprint("leaves-", n), owner.DeedState{Deed: owner.Deed{Kind: owner.Reboot}, Ended: now, Err: context.Canceled, Leaves: leaves})
	}
	for n, kind := range kindsOfErrors {
		deed(fmt.Sprint("error-", n), owner.DeedState{Deed: owner.Deed{Kind: owner.Reboot}, Ended: now, Err: kind})
	}
	return all
}

// A person who has chosen German reads German: on each page, of each role, in each state, and of each kind of deed with
// its question, its steps, its results and its errors. Found by words that are English, and by texts that are the same
// in both languages. The same pages in English show that the test finds what it looks for.
func TestGermanPagesHaveNoEnglish(t *testing.T) {
	texts := func(l words.Language, address string, s owner.State) []string {
		var text strings.Builder
		r := New(l, 15*time.Minute)
		if err := r.Document(&text, r.Page(address, s, now), Frame{Path: "/page"}); err != nil {
			t.Fatal(err)
		}
		tree, err := html.Parse(strings.NewReader(text.String()))
		if err != nil {
			t.Fatal(err)
		}
		return said(tree)
	}
	found := map[string]string{}
	for name, s := range germanStates(t) {
		addresses := []string{"/bases", "/pair", "/enter", "/base/none/overview"}
		if len(s.Deeds) > 0 {
			addresses = []string{"/deed/1"}
		} else if len(s.Bases) > 0 {
			for _, screen := range screens {
				addresses = append(addresses, addressOf(s.Bases[0], screen.name)+"?service=nginx")
			}
		}
		for _, address := range addresses {
			english := texts(words.English, address, s)
			if len(englishIn(english, english)) == 0 {
				t.Errorf("%s %s: the test finds no English in the English page", name, address)
			}
			for _, text := range englishIn(texts(words.German, address, s), english) {
				found[text] = name + " " + address
			}
		}
	}
	for text, where := range found {
		t.Errorf("%s says %q", where, text)
	}
}
