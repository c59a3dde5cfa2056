package posture

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
)

// answer is what a Base shows to an App, on its way through a Middleware that may
// lie.
type answer struct {
	expect          Expectation
	history, report []byte
}

func (d *device) answer(memory Memory) answer {
	d.t.Helper()
	nonce := make([]byte, nonceSize)
	_, _ = d.random.Read(nonce)
	report, _, err := d.ledger.Report(nonce, d.now)
	if err != nil {
		d.t.Fatalf("report: %v", err)
	}
	return answer{Expectation{Base: PublicKey(d.config.StateSeed), Memory: memory, Nonce: nonce}, d.ledger.Chain(), report}
}

// rewrite changes a report and signs it again.
func rewrite[Kind any](report []byte, label string, seed secret.Key[Kind], change func(*systemv1.PostureReport)) []byte {
	var signed systemv1.Signed
	var m systemv1.PostureReport
	if err := errors.Join(proto.Unmarshal(report, &signed), proto.Unmarshal(signed.Message, &m)); err != nil {
		panic(err)
	}
	change(&m)
	return encode(seal(label, encode(&m), seed))
}

// lies are what a taken-over Middleware may show to an App. memory is the App's
// from just before the last change, which withdrew SSH.
var lies = []struct {
	name, stoppedBy string
	want            error
	lie             func(a *attacked, honest answer, old answer) answer
}{
	{"everything as it was, with the old report", "nonce", ErrReport, func(_ *attacked, honest, old answer) answer {
		honest.expect.Memory = old.expect.Memory
		return answer{honest.expect, old.history, old.report}
	}},
	{"the report of another question", "nonce", ErrReport, func(_ *attacked, honest, _ answer) answer {
		honest.expect.Nonce = make([]byte, nonceSize)
		return honest
	}},
	{"a report without a nonce, to an App that asked with none", "nonce", ErrReport, func(a *attacked, honest, _ answer) answer {
		honest.expect.Nonce = nil
		honest.report = rewrite(honest.report, labelReport, a.config.StateSeed, func(r *systemv1.PostureReport) { r.Nonce = nil })
		return honest
	}},
	{"a report signed by the Middleware", "signer", ErrNotHelper, func(a *attacked, honest, _ answer) answer {
		honest.report = rewrite(honest.report, labelReport, a.operator, func(*systemv1.PostureReport) {})
		return honest
	}},
	{"a report with the leases changed", "signature", ErrSignature, func(a *attacked, honest, _ answer) answer {
		honest.report = rewrite(honest.report, labelAnchor, a.config.StateSeed, func(r *systemv1.PostureReport) { r.Leases = nil })
		return honest
	}},
	{"a report with the Middleware's certificate for wallets", "signature", ErrSignature, func(a *attacked, honest, _ answer) answer {
		honest.report = rewrite(honest.report, labelAnchor, a.config.StateSeed, func(r *systemv1.PostureReport) {
			r.Certificates = []*systemv1.CertificateDigest{{Kind: string(KindElectrum), Sha256: make([]byte, 32)}}
		})
		return honest
	}},
	{"a report with a field from the future", "no unknown field", ErrUnknownField, func(a *attacked, honest, _ answer) answer {
		honest.report = rewrite(honest.report, labelReport, a.config.StateSeed,
			func(r *systemv1.PostureReport) { r.ProtoReflect().SetUnknown(unknownField) })
		return honest
	}},
	{"the last document withheld", "same chain", ErrReport, func(a *attacked, honest, _ answer) answer {
		honest.history = a.cut(honest.history, func(m *systemv1.PostureChain) {
			m.Documents = m.Documents[:len(m.Documents)-1]
			m.Restrictions = m.Restrictions[:len(m.Restrictions)-1] // which came after it
		})
		honest.expect.Memory = Memory{}
		return honest
	}},
	{"the last restriction withheld", "same chain", ErrReport, func(a *attacked, honest, _ answer) answer {
		honest.history = a.cut(honest.history, func(m *systemv1.PostureChain) { m.Restrictions = m.Restrictions[:len(m.Restrictions)-1] })
		honest.expect.Memory = Memory{}
		return honest
	}},
	{"a restriction made up", "same chain", ErrReport, func(a *attacked, honest, _ answer) answer {
		honest.history = a.cut(honest.history, func(m *systemv1.PostureChain) {
			number, hash := a.ledger.chain.lastRestriction()
			r := &systemv1.Restriction{Epoch: a.ledger.chain.epoch[:], Number: number + 1, PreviousHash: hash[:],
				Revision: a.ledger.chain.revision()}
			Closing{Type: ClosingPairing}.describe(r)
			m.Restrictions = append(m.Restrictions, encode(r))
		})
		return honest
	}},
	{"a Base restored from an old disk", "not older", ErrOlder, func(a *attacked, honest, old answer) answer {
		old.expect.Memory = honest.expect.Memory
		return old
	}},
	{"a Base restored from a disk that lacks the last restriction", "not older", ErrOlder, func(_ *attacked, honest, _ answer) answer {
		honest.expect.Memory.Restriction++
		return honest
	}},
	{"a Base restored from an old disk that went on otherwise", "same history", ErrFork, func(a *attacked, honest, _ answer) answer {
		a.restoreOldDisk()
		a.blind = true
		for range 4 {
			a.change(a.owner, func(p *Posture) { p.NodeName += "?" })
		}
		a.must(a.ledger.Restrict(Closing{Type: ClosingLockdown}, ActorMiddleware, a.now))
		return a.answer(honest.expect.Memory)
	}},
	{"restrictions that went on otherwise", "same history", ErrFork, func(a *attacked, honest, _ answer) answer {
		honest.expect.Memory.RestrictionHash[0] ^= 1
		return honest
	}},
	{"a reset Base with the same key", "known epoch", ErrWrongEpoch, func(a *attacked, honest, _ answer) answer {
		honest.expect.Memory.Epoch[0] ^= 1
		return honest
	}},
}

func (d *device) cut(history []byte, change func(*systemv1.PostureChain)) []byte {
	var m systemv1.PostureChain
	if err := proto.Unmarshal(history, &m); err != nil {
		d.t.Fatalf("%v", err)
	}
	change(&m)
	return encode(&m)
}

func (a *attacked) restoreOldDisk() {
	ledger, _, err := Load(a.config, a.oldDisk, a.now)
	if err != nil {
		a.t.Fatalf("%v", err)
	}
	a.ledger = ledger
}

// newLooked is an attacked Base where SSH was opened, looked at, and withdrawn;
// old is the earlier answer.
func newLooked(t tester) (a *attacked, honest, old answer) {
	a = newAttacked(t)
	a.change(a.owner, a.openSSH(time.Hour))
	a.lift(a.owner, 1)
	a.oldDisk = slices.Clone(a.disk)
	old = a.answer(a.memory)
	a.change(a.owner, func(p *Posture) { p.SSH = nil })
	a.must(a.ledger.Restrict(Closing{Type: ClosingLockdown}, ActorMiddleware, a.now))
	return a, a.answer(a.memory), old
}

func TestLyingMiddlewareIsNoticed(t *testing.T) {
	tried := map[string]bool{}
	for _, attack := range lies {
		t.Run(attack.name, func(t *testing.T) {
			a, honest, old := newLooked(t)
			if _, err := VerifyChain(honest.expect, honest.history, honest.report); err != nil {
				t.Fatalf("the truth is refused: %v", err)
			}
			lie := attack.lie(a, honest, old)
			if _, err := VerifyChain(lie.expect, lie.history, lie.report); !errors.Is(err, attack.want) {
				t.Errorf("got %v instead of %q", err, attack.want)
			}
			checks := without(t, reportChecks, func(c reportCheck) bool { return c.name == attack.stoppedBy })
			if _, err := verifyWith(checks, lie.expect, lie.history, lie.report); err != nil {
				t.Errorf("without the check %q something else stops it: %v", attack.stoppedBy, err)
			}
		})
		tried[attack.stoppedBy] = true
	}
	for _, check := range reportChecks {
		if !tried[check.name] {
			t.Errorf("no attack shows what the check %q is for", check.name)
		}
	}
}

func TestEachFlippedBitOfAnAnswerIsRefused(t *testing.T) {
	_, honest, _ := newLooked(t)
	flip := func(b []byte, i int) []byte {
		b = slices.Clone(b)
		b[i/8] ^= 1 << (i % 8)
		return b
	}
	view, err := VerifyChain(honest.expect, honest.history, honest.report)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(honest.report) * 8 {
		if _, err := believe(reportChecks, honest.expect, view.chain, flip(honest.report, i)); err == nil {
			t.Errorf("believed with bit %d of the report flipped", i)
		}
	}
	for i := 0; i < len(honest.history); i += 3 { // one bit of each third byte: it is long
		if _, err := VerifyChain(honest.expect, flip(honest.history, i*8+i%8), honest.report); err == nil {
			t.Errorf("believed with bit %d of byte %d of the history flipped", i%8, i)
		}
	}
	for n := range honest.history {
		if _, err := VerifyChain(honest.expect, honest.history[:n], honest.report); err == nil {
			t.Errorf("believed after %d of %d bytes of the history", n, len(honest.history))
		}
	}
}

func TestAnchorOfAnotherKeyIsRefused(t *testing.T) {
	a, honest, _ := newLooked(t)
	for name, change := range map[string]func(*systemv1.PostureChain){
		"signed by an owner": func(m *systemv1.PostureChain) { m.Anchor = seal(labelAnchor, m.Anchor.Message, a.owner) },
		"with the label of a document": func(m *systemv1.PostureChain) {
			m.Anchor = seal(labelDocument, m.Anchor.Message, a.config.StateSeed)
		},
		"missing":                  func(m *systemv1.PostureChain) { m.Anchor = nil },
		"with an unknown field":    func(m *systemv1.PostureChain) { m.Anchor.ProtoReflect().SetUnknown(unknownField) },
		"beside an unknown field":  func(m *systemv1.PostureChain) { m.ProtoReflect().SetUnknown(unknownField) },
		"documents in other order": func(m *systemv1.PostureChain) { slices.Reverse(m.Documents) },
		"a document twice":         func(m *systemv1.PostureChain) { m.Documents = append(m.Documents[:1:1], m.Documents...) },
		"restrictions reversed":    func(m *systemv1.PostureChain) { slices.Reverse(m.Restrictions) },
	} {
		if _, err := VerifyChain(honest.expect, a.cut(honest.history, change), honest.report); err == nil {
			t.Errorf("believed: %s", name)
		}
	}
}

// Not even a signature by the helper's own key makes a false anchor valid.
func TestFalseAnchorIsRefusedEvenWithTheHelpersSignature(t *testing.T) {
	a, honest, _ := newLooked(t)
	var history systemv1.PostureChain
	var anchor systemv1.ChainAnchor
	if err := proto.Unmarshal(honest.history, &history); err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(history.Anchor.Message, &anchor); err != nil {
		t.Fatal(err)
	}
	document := func(change func(*systemv1.PostureDocument)) func(*systemv1.ChainAnchor) {
		return func(m *systemv1.ChainAnchor) {
			var doc systemv1.PostureDocument
			if err := proto.Unmarshal(m.Document.Message, &doc); err != nil {
				t.Fatal(err)
			}
			change(&doc)
			m.Document = seal(labelDocument, encode(&doc), a.config.StateSeed)
		}
	}
	for name, test := range map[string]struct {
		want   error
		change func(*systemv1.ChainAnchor)
	}{
		"of another Base":         {ErrWrongBase, func(m *systemv1.ChainAnchor) { m.BaseId[0] ^= 1 }},
		"with another's document": {ErrWrongBase, document(func(doc *systemv1.PostureDocument) { doc.BaseId[0] ^= 1 })},
		"of another epoch":        {ErrWrongEpoch, func(m *systemv1.ChainAnchor) { m.Epoch[0] ^= 1 }},
		"with a short epoch": {ErrWrongEpoch, func(m *systemv1.ChainAnchor) {
			m.Epoch = m.Epoch[1:]
			document(func(doc *systemv1.PostureDocument) { doc.Epoch = doc.Epoch[1:] })(m)
		}},
		"with a short hash":           {ErrMalformed, func(m *systemv1.ChainAnchor) { m.RestrictionHash = nil }},
		"with an unsigned document":   {ErrSignature, func(m *systemv1.ChainAnchor) { m.Document.Signature = nil }},
		"without a document":          {ErrSignature, func(m *systemv1.ChainAnchor) { m.Document = nil }},
		"with bad content":            {nil, document(func(doc *systemv1.PostureDocument) { doc.Posture = nil })},
		"with a bad restriction":      {ErrMalformed, func(m *systemv1.ChainAnchor) { m.Active = [][]byte{{}} }},
		"with a field from elsewhere": {ErrUnknownField, func(m *systemv1.ChainAnchor) { m.ProtoReflect().SetUnknown(unknownField) }},
		"with such a document": {ErrUnknownField,
			document(func(doc *systemv1.PostureDocument) { doc.ProtoReflect().SetUnknown(unknownField) })},
	} {
		m := proto.Clone(&anchor).(*systemv1.ChainAnchor)
		test.change(m)
		c := &chain{base: honest.expect.Base}
		err := c.begin(seal(labelAnchor, encode(m), a.config.StateSeed))
		if err == nil || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: got %v instead of %v", name, err, test.want)
		}
	}
}

func TestAppSeesWhatIsInForceAndHowLongATryLasts(t *testing.T) {
	a := newTried(t)
	a.pass(10 * time.Second)
	view := a.look()
	if e := view.Effective(); e.SSH == nil || e.SSH.Remaining != time.Hour-10*time.Second {
		t.Errorf("SSH: %+v", e.SSH)
	}
	if pending, trying, left := view.Pending(); !pending || !trying || left != TryTime-10*time.Second {
		t.Errorf("pending %v, trying %v, undone in %v", pending, trying, left)
	}
	if got := view.Liftable(); len(got) != 0 {
		t.Errorf("liftable: %+v", got)
	}
}

// The changes that an App shows before it signs are the changes that the Base makes.
func TestChangesShownAreTheChangesMade(t *testing.T) {
	a := newAttacked(t)
	view := a.look()
	p, revision := view.Posture()
	p.SSHKeys = append(p.SSHKeys, keyOne)
	p.SSH = &Lease{Length: 2 * time.Hour, GrantedIn: revision + 1}
	doc, err := view.Draft(p, []uint64{1}, a.challenge(), false, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	shown := view.Changes(doc)
	before := a.ledger.Effective()
	a.must(a.ledger.Submit(SignDocument(doc, a.owner), a.now))
	a.must(a.ledger.Applied(doc.Revision, a.now))
	if made := Diff(before, a.ledger.Effective()); !reflect.DeepEqual(shown, made) {
		t.Errorf("shown %+v, made %+v", shown, made)
	}
}

// The App shows a host key and a certificate's digest only if the helper has signed them.
func TestTheKeysOfWhatIsOpenAreSigned(t *testing.T) {
	d := newDevice(t)
	owner := d.owner("Laptop")
	d.config.Identities = func(e Effective) Identities {
		i := Identities{SSHHostKey: []byte("a host key"), Certificates: map[Kind][32]byte{}}
		for _, end := range e.Endpoints {
			if end.Kind != KindEntry {
				i.Certificates[end.Kind] = [32]byte{1}
			}
		}
		return i
	}
	d.ledger.config = d.config
	d.change(owner, d.openElectrum(time.Hour))
	honest := d.answer(Memory{})
	view, err := VerifyChain(honest.expect, honest.history, honest.report)
	if err != nil {
		t.Fatal(err)
	}
	if i := view.Identities(); string(i.SSHHostKey) != "a host key" || len(i.Certificates) != 1 || i.Certificates["electrum"] != [32]byte{1} {
		t.Errorf("%+v", i)
	}
	stranger := seedFrom[stateSeedKind](d.random)
	for name, lie := range map[string][]byte{
		"another host key": rewrite(honest.report, labelReport, stranger,
			func(r *systemv1.PostureReport) { r.SshHostKey = []byte("a stranger's") }),
		"no certificate": rewrite(honest.report, labelReport, stranger, func(r *systemv1.PostureReport) { r.Certificates = nil }),
	} {
		if _, err := VerifyChain(honest.expect, honest.history, lie); err == nil {
			t.Errorf("%s is believed", name)
		}
	}
}
