package posture

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
)

// tester is what *testing.T and *rapid.T have in common.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

// device is a Base with its Ledger, the disk that its state is saved on, and an
// App that looks at it after each step.
type device struct {
	t      tester
	config Config
	ledger *Ledger
	now    time.Duration
	disk   []byte
	memory Memory
	random *rand.ChaCha8
	// blind: the App does not look after each step, where a test makes many.
	blind bool
	// kept, when not 0, is how many revisions the Ledger keeps.
	kept int
}

func newDevice(t tester) *device {
	t.Helper()
	random := rand.NewChaCha8([32]byte{1})
	d := &device{
		t: t, now: time.Hour, random: random,
		config: Config{
			StateSeed: seedFrom[stateSeedKind](random), Random: random, BootID: "boot 1",
			Wall: func() time.Time { return time.Unix(1_800_000_000, 0) },
		},
	}
	ledger, out, err := New(d.config, Factory(), d.now)
	d.ledger = ledger
	d.must(out, err)
	return d
}

func seedFrom[Kind any](random *rand.ChaCha8) secret.Key[Kind] {
	key, err := secret.Generate[Kind](random)
	if err != nil {
		panic(err)
	}
	return key
}

// save is what the helper does with every Output.
func (d *device) save(out Output) {
	if out.Save != nil {
		d.disk = out.Save
	}
}

// must saves, and wants no error; then the App looks.
func (d *device) must(out Output, err error) {
	d.t.Helper()
	d.save(out)
	if err != nil {
		d.t.Fatalf("refused: %v", err)
	}
	if !d.blind {
		d.look()
	}
}

// look is an App's look at the Base, over a Middleware that changes nothing.
func (d *device) look() *View {
	d.t.Helper()
	nonce := make([]byte, nonceSize)
	_, _ = d.random.Read(nonce)
	report, out, err := d.ledger.Report(nonce, d.now)
	d.save(out)
	if err != nil {
		d.t.Fatalf("report: %v", err)
	}
	view, err := VerifyChain(Expectation{Base: PublicKey(d.config.StateSeed), Memory: d.memory, Nonce: nonce}, d.ledger.Chain(), report)
	if err != nil {
		d.t.Fatalf("the App does not believe an honest Base: %v", err)
	}
	d.memory = view.Memory()
	return view
}

// pair enrols an App with a role.
func (d *device) pair(name string, role basev1.Role) AppSeed {
	d.t.Helper()
	seed := seedFrom[appSeedKind](d.random)
	d.must(d.ledger.Enrol(appOf(name, role, seed), "", d.now))
	return seed
}

func appOf(name string, role basev1.Role, seed AppSeed) App {
	key := PublicKey(seed)
	return App{SigningKey: key, Role: role, Name: name, ID: fmt.Sprintf("%x", key[:8])}
}

func (d *device) owner(name string) AppSeed {
	d.t.Helper()
	return d.pair(name, basev1.Role_ROLE_OWNER)
}

func (d *device) challenge() []byte {
	d.t.Helper()
	value, out, err := d.ledger.Challenge(d.now)
	d.save(out)
	if err != nil {
		d.t.Fatalf("challenge: %v", err)
	}
	return value
}

// draft is the next document with a change, not signed yet.
func (d *device) draft(change func(*Posture)) *systemv1.PostureDocument {
	d.t.Helper()
	view := &View{chain: d.ledger.chain}
	if !d.blind {
		view = d.look()
	}
	p, _ := view.Posture()
	p = clonePosture(p)
	change(&p)
	doc, err := view.Draft(p, nil, d.challenge(), false, time.Unix(1_800_000_001, 0))
	if err != nil {
		d.t.Fatalf("draft: %v", err)
	}
	return doc
}

// change has an owner sign a change, and applies it.
func (d *device) change(seed AppSeed, change func(*Posture)) {
	d.t.Helper()
	d.must(d.ledger.Submit(SignDocument(d.draft(change), seed), d.now))
	d.must(d.ledger.Applied(d.ledger.chain.revision(), d.now))
}

// try has an owner sign a change that is tried, and applies it.
func (d *device) try(seed AppSeed, change func(*Posture)) {
	d.t.Helper()
	doc := d.draft(change)
	doc.Try = true
	d.must(d.ledger.Submit(SignDocument(doc, seed), d.now))
	d.must(d.ledger.Applied(d.ledger.chain.revision(), d.now))
}

// lift has an owner sign a document that lifts restrictions and changes nothing else.
func (d *device) lift(seed AppSeed, numbers ...uint64) {
	d.t.Helper()
	doc := d.draft(func(*Posture) {})
	doc.Lifts = numbers
	d.must(d.ledger.Submit(SignDocument(doc, seed), d.now))
	d.must(d.ledger.Applied(d.ledger.chain.revision(), d.now))
}

// restart loads what was saved, in the same boot.
func (d *device) restart() {
	d.t.Helper()
	ledger, out, err := Load(d.config, d.disk, d.now)
	if err != nil {
		d.t.Fatalf("load: %v", err)
	}
	d.ledger = ledger
	d.keep(d.kept)
	d.must(out, nil)
}

// keep makes the Ledger keep fewer revisions.
func (d *device) keep(n int) {
	if n > 0 {
		d.kept, d.ledger.kept = n, n
	}
}

// reboot loads what was saved, in another boot, whose clock starts at zero.
func (d *device) reboot() {
	d.t.Helper()
	d.config.BootID += "+"
	d.now = 10 * time.Second
	d.restart()
}

// pass lets time go by, with the Ticks that the helper makes.
func (d *device) pass(span time.Duration) {
	d.t.Helper()
	end := d.now + span
	for {
		due, any := d.ledger.Deadline()
		if !any || due > end {
			break
		}
		d.now = max(d.now, due)
		d.save(d.ledger.Tick(d.now))
		if next, any := d.ledger.Deadline(); any && next <= d.now {
			d.t.Fatalf("after Tick at %v the next is due at %v: the helper would spin", d.now, next)
		}
	}
	d.now = end
	d.save(d.ledger.Tick(d.now))
}

func clonePosture(p Posture) Posture {
	q, err := decodePosture(proto.Clone(p.Proto()).(*systemv1.Posture))
	if err != nil {
		panic(err)
	}
	return q
}

// next is the revision that a new document has.
func (d *device) next() uint64 { return d.ledger.chain.revision() + 1 }

func (d *device) openSSH(length time.Duration) func(*Posture) {
	revision := d.next()
	return func(p *Posture) {
		p.SSHKeys = []sshkey.Key{testKey("laptop")}
		p.SSH = &Lease{Length: length, GrantedIn: revision}
	}
}

func (d *device) openElectrum(length time.Duration) func(*Posture) {
	revision := d.next()
	return func(p *Posture) {
		p.Extras = []ExtraEndpoint{{Kind: KindElectrum, OwnPort: true, Lease: Lease{Length: length, GrantedIn: revision}}}
	}
}

// testKey is an Ed25519 key made from its comment.
func testKey(comment string) sshkey.Key {
	public := hashOf("key", []byte(comment))
	return parseKey("ssh-ed25519", comment, public[:])
}

// rsaKey has a modulus of 8192 bits made from its comment; nobody has its factors.
func rsaKey(comment string) sshkey.Key {
	modulus := []byte{0, 0xff}
	for seed := hashOf("rsa", []byte(comment)); len(modulus) < 1025; seed = hashOf("rsa", seed[:]) {
		modulus = append(modulus, seed[:]...)
	}
	modulus = modulus[:1025]
	modulus[1024] |= 1
	return parseKey("ssh-rsa", comment, []byte{1, 0, 1}, modulus)
}

// parseKey writes a key in the format of RFC 4253 section 6.6 and reads it.
func parseKey(kind, comment string, fields ...[]byte) sshkey.Key {
	var blob []byte
	for _, field := range append([][]byte{[]byte(kind)}, fields...) {
		blob = append(binary.BigEndian.AppendUint32(blob, uint32(len(field))), field...)
	}
	key, err := sshkey.Parse(kind + " " + base64.StdEncoding.EncodeToString(blob) + " " + comment)
	if err != nil {
		panic(err)
	}
	return key
}

// without returns a table of checks with one taken out: the broken variant that
// shows that an attack would succeed.
func without[C any](t testing.TB, checks []C, isIt func(C) bool) []C {
	t.Helper()
	i := slices.IndexFunc(checks, isIt)
	if i < 0 {
		t.Fatal("the table has no such check")
	}
	return slices.Delete(slices.Clone(checks), i, i+1)
}

func sameBytes(t testing.TB, before, after []byte, what string) {
	t.Helper()
	if !bytes.Equal(before, after) {
		t.Errorf("%s: it has changed", what)
	}
}
