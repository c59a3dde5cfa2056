package client

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
)

const (
	storeFile   = "pairings.db"
	storeKind   = "bitbox-app"
	storeSchema = 1
	// storeWait is how long another process of the App is waited for. Each holds
	// the file for some milliseconds only.
	storeWait = 10 * time.Second

	bucketBases   = "bases"   // by id: a stored, as JSON
	bucketReveals = "reveals" // the key "times": times of reveals that came to nothing, as JSON

	// maxAddresses is how many addresses of a Base are remembered.
	maxAddresses = 4
)

// stored is a pairing in the App's database. Its secrets are bytes here, and
// leave this file as keys only.
type stored struct {
	Name     string       `json:"name"`
	State    PairingState `json:"state"`
	BaseKey  []byte       `json:"base_key"`
	StateKey []byte       `json:"state_key"`
	BaseName string       `json:"base_name"`
	AppName  string       `json:"app_name"`
	Role     basev1.Role  `json:"role"`
	RoleAt   time.Time    `json:"role_at,omitzero"` // zero: when it was paired
	PairedAt time.Time    `json:"paired_at"`
	// Ceiling is above every number of a connection that was used (counter.go).
	Ceiling   uint64   `json:"ceiling"`
	Addresses []string `json:"addresses"`
	// Silences are when handshakes with an address had no answer, while that counts
	// (silence.go).
	Silences map[string][]time.Time `json:"silences,omitempty"`
	// Seen is the newest posture of the Base that the App has verified.
	Seen posture.Memory `json:"seen"`
	// Changes is what of the log of changes it has verified, Events the sequence of the last
	// event that it has shown. Older Apps do not know them, and drop them.
	Changes changelog.Memory `json:"changes,omitzero"`
	Events  uint64           `json:"events,omitempty"`

	Static    []byte `json:"static"`
	Signing   []byte `json:"signing"` // the seed of K_sign
	Pair      []byte `json:"pair"`
	Discovery []byte `json:"discovery"`

	// PrePaired is there if the pairing was built into an image. Until a board was met,
	// Pair and StateKey are empty.
	PrePaired *storedPrePaired `json:"prePaired,omitempty"`
}

// pairing is a stored with its keys parsed.
type pairing struct {
	Base
	static    noiseconn.StaticKey
	pair      noiseconn.PairKey
	discovery noiseconn.DiscoveryKey
	prePaired *prePaired // nil unless it was built into an image
	ceiling   uint64     // see counter.go; 0: there was no connection yet
}

func (s *stored) parse() (*pairing, error) {
	if s.RoleAt.IsZero() {
		s.RoleAt = s.PairedAt
	}
	static, err := noiseconn.ParseStatic(s.Static)
	if err != nil {
		return nil, err
	}
	public, err := noiseconn.PublicOf(static)
	if err != nil {
		return nil, err
	}
	base, err := noiseconn.ParsePublicKey(s.BaseKey)
	if err != nil {
		return nil, err
	}
	var image *prePaired
	if s.PrePaired != nil {
		if image, err = s.PrePaired.parse(); err != nil {
			return nil, err
		}
	}
	prePaired := s.State == PrePaired && image != nil
	var pair noiseconn.PairKey
	if !prePaired {
		if pair, err = noiseconn.ParsePairKey(s.Pair); err != nil {
			return nil, err
		}
	}
	discovery, err := noiseconn.ParseDiscoveryKey(s.Discovery)
	if err != nil {
		return nil, err
	}
	if !prePaired && len(s.StateKey) != ed25519.PublicKeySize || len(s.Signing) != ed25519.SeedSize {
		return nil, errors.New("a signing key has a wrong length")
	}
	return &pairing{
		Base: Base{
			Name:      s.Name,
			State:     s.State,
			PublicKey: base,
			AppID:     public.AppID(),
			AppName:   s.AppName,
			Role:      s.Role,
			RoleAt:    s.RoleAt,
			PairedAt:  s.PairedAt,
			Addresses: slices.Clone(s.Addresses),
		},
		static: static, pair: pair, discovery: discovery, prePaired: image,
		ceiling: s.Ceiling,
	}, nil
}

// store is the App's database. It is open only while it is used, so that several
// processes of the App can run.
type store struct {
	path string
	mu   sync.Mutex // one transaction of this process at a time

	counting sync.Mutex // one number of a connection at a time

	caching sync.Mutex // guards cached
	cached  *contents  // nil: nothing is

	failpoint func(point string) // called before and after each write; for tests
}

func (s *store) update(what string, fn func(*state.Tx) error) error {
	if s.failpoint != nil {
		s.failpoint("before: " + what)
		defer s.failpoint("after: " + what)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return explainStorage(err, what)
	}
	db, err := state.Open(s.path, storeOptions)
	if err != nil {
		return explainStorage(err, what)
	}
	return explainStorage(errors.Join(db.Update(fn), db.Close()), what)
}

// view writes nothing: what only reads works on a read-only disk, and makes no
// directory of a name that was mistyped.
func (s *store) view(what string, fn func(*state.Tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return explainStorage(state.Read(s.path, storeOptions, fn), what)
}

var storeOptions = state.Options{Kind: storeKind, Schema: storeSchema, Create: true, Wait: storeWait}

// explainStorage makes a sentence of an error of the database; errors that have
// one already pass.
func explainStorage(err error, what string) error {
	var known *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case errors.Is(err, syscall.ENOSPC):
		return fail(ErrStorage, err, "%s: the disk is full; make room and try again, what was stored before is still there (%v)", what, err)
	case errors.Is(err, syscall.EROFS):
		return fail(ErrStorage, err, "%s: the App's directory is on a read-only disk; choose another with --dir (%v)", what, err)
	case errors.Is(err, fs.ErrPermission):
		return fail(ErrStorage, err, "%s: this user is not permitted; check who owns the App's directory (%v)", what, err)
	}
	return fail(ErrStorage, err, "%s: %v", what, err)
}

func get(tx *state.Tx, id string) (*stored, error) {
	raw := tx.Get(bucketBases, id)
	if raw == nil {
		return nil, errDeleted()
	}
	s := &stored{}
	if err := json.Unmarshal(raw, s); err != nil {
		return nil, fmt.Errorf("read the pairing %s: %w", id, err)
	}
	return s, nil
}

func put(tx *state.Tx, id string, s *stored) error {
	raw, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("store the pairing %s: %w", id, err)
	}
	return tx.Put(bucketBases, id, raw)
}

// all returns every pairing by its id.
func all(tx *state.Tx) (map[string]*stored, error) {
	found := map[string]*stored{}
	err := tx.ForEach(bucketBases, func(id string, raw []byte) error {
		s := &stored{}
		if err := json.Unmarshal(raw, s); err != nil {
			return fmt.Errorf("read the pairing %s: %w", id, err)
		}
		found[id] = s
		return nil
	})
	return found, err
}

// contents are what the database held when it was read. They are not changed.
type contents struct {
	file     fs.FileInfo // of the database
	records  map[string]*stored
	pairings map[string]*pairing
}

// cacheAfter is how long the database must have been unchanged before what was read of it is kept.
// A change that follows within the resolution of the file system's clock would not be seen.
const cacheAfter = time.Second

// read returns what the database holds. As long as its file is the same, it is not opened
// again: a connection would otherwise open it several times, at a millisecond each.
func (s *store) read() (*contents, error) {
	s.caching.Lock()
	defer s.caching.Unlock()
	file, err := os.Stat(s.path)
	if err == nil && s.cached != nil && unchanged(s.cached.file, file) {
		return s.cached, nil
	}
	s.cached = nil
	c := &contents{file: file, pairings: map[string]*pairing{}}
	now := time.Now()
	if err := s.view("read the pairings", func(tx *state.Tx) error {
		var err error
		if c.records, err = all(tx); err != nil {
			return err
		}
		for id, record := range c.records {
			if c.pairings[id], err = record.parse(); err != nil {
				return fmt.Errorf("read the pairing %s: %w", id, err)
			}
			// The keys are in the pairing, as types that nothing prints.
			record.Static, record.Signing, record.Pair, record.Discovery, record.PrePaired = nil, nil, nil, nil, nil
		}
		return nil
	}); err != nil {
		return nil, err
	}
	if err == nil && now.Sub(file.ModTime()) >= cacheAfter {
		s.cached = c
	}
	return c, nil
}

func unchanged(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// record returns what is stored of a pairing, without its keys.
func (s *store) record(id string) (*stored, error) {
	c, err := s.read()
	if err != nil {
		return nil, err
	}
	if record := c.records[id]; record != nil {
		return record, nil
	}
	return nil, errDeleted()
}

func errDeleted() error {
	return fail(ErrNoSuchBase, nil, "this pairing was deleted meanwhile; pair again")
}

// pairings returns every pairing, in the order of their names.
func (s *store) pairings() ([]*pairing, error) {
	c, err := s.read()
	if err != nil {
		return nil, err
	}
	var list []*pairing
	for _, p := range c.pairings {
		list = append(list, p.clone())
	}
	slices.SortFunc(list, func(a, b *pairing) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func (s *store) pairing(id string) (*pairing, error) {
	c, err := s.read()
	if err != nil {
		return nil, err
	}
	if p := c.pairings[id]; p != nil {
		return p.clone(), nil
	}
	return nil, errDeleted()
}

// clone is a copy that its holder may change. It shares the keys.
func (p *pairing) clone() *pairing {
	c := *p
	c.Addresses = slices.Clone(p.Addresses)
	return &c
}

// addPending stores a new pairing, under a name that is free, and forgets the
// reveal that led to it.
func (s *store) addPending(id string, record *stored, reveal time.Time) error {
	return s.update("store the pairing", func(tx *state.Tx) error {
		records, err := all(tx)
		if err != nil {
			return err
		}
		record.Name = freeName(record, records)
		if err := put(tx, id, record); err != nil {
			return err
		}
		times, err := revealTimes(tx)
		if err != nil {
			return err
		}
		return putRevealTimes(tx, slices.DeleteFunc(times, reveal.Equal))
	})
}

// add stores a new pairing, under a name that is free.
func (s *store) add(id string, record *stored) error {
	return s.update("store the pairing", func(tx *state.Tx) error {
		records, err := all(tx)
		if err != nil {
			return err
		}
		record.Name = freeName(record, records)
		return put(tx, id, record)
	})
}

// freeName makes the wanted name unique. What is revoked, or another pairing with
// the same Base that never got ready, does not keep a name from a new pairing
// with that Base.
func freeName(record *stored, records map[string]*stored) string {
	taken := func(name string) bool {
		for _, other := range records {
			if other.Name == name && !replaces(record, other) {
				return true
			}
		}
		return false
	}
	name := record.Name
	for n := 2; taken(name); n++ {
		name = fmt.Sprintf("%s (%d)", record.Name, n)
	}
	return name
}

// replaces tells whether a pairing that becomes active takes the place of another one:
// one with the same Base that can no longer be used, or one with a Base that was reset
// and had the name.
func replaces(record, other *stored) bool {
	return other.State != Active && string(other.BaseKey) == string(record.BaseKey) ||
		other.State == Reset && other.Name == record.Name
}

// activate marks a pairing as active, and deletes those that it replaces.
func (s *store) activate(id string) error {
	return s.update("store that the pairing is active", func(tx *state.Tx) error {
		record, err := get(tx, id)
		if err != nil || record.State == Active {
			return err
		}
		record.State = Active
		records, err := all(tx)
		if err != nil {
			return err
		}
		for other, r := range records {
			if other != id && replaces(record, r) {
				if err := tx.Delete(bucketBases, other); err != nil {
					return err
				}
			}
		}
		return put(tx, id, record)
	})
}

// revoke marks a pairing as revoked. It stays until the user has it forgotten.
func (s *store) revoke(id string) error {
	return s.change(id, "store that the App was revoked", func(r *stored) { r.State = Revoked })
}

// reset marks that this App has wiped the Base.
func (s *store) reset(id string) error {
	return s.change(id, "store that the Base was reset", func(r *stored) { r.State = Reset })
}

// learnRole keeps what the Base says that this App may do.
func (s *store) learnRole(id string, role basev1.Role, at time.Time) error {
	return s.change(id, "store the role of this App", func(r *stored) { r.Role, r.RoleAt = role, at })
}

// sawAt keeps the address at which a Base has proved itself, the latest first.
func (s *stored) sawAt(address string) {
	addresses := append([]string{address}, slices.DeleteFunc(s.Addresses, func(a string) bool { return a == address })...)
	s.Addresses = addresses[:min(len(addresses), maxAddresses)]
}

func (s *store) change(id, what string, fn func(*stored)) error {
	return s.update(what, func(tx *state.Tx) error {
		record, err := get(tx, id)
		if err != nil {
			return err
		}
		fn(record)
		return put(tx, id, record)
	})
}

func (s *store) remove(id string) error {
	err := s.update("delete the pairing", func(tx *state.Tx) error { return tx.Delete(bucketBases, id) })
	if err != nil {
		return err
	}
	return s.forgetCounter(id)
}

// signing returns what the App signs with, and what it verifies the Base's posture
// with.
func (s *store) signing(id string) (seed posture.AppSeed, base posture.SigningKey, seen posture.Memory, err error) {
	err = s.view("read the App's signing key", func(tx *state.Tx) error {
		record, err := get(tx, id)
		if err != nil {
			return err
		}
		if seed, err = parseAppSeed(record.Signing); err != nil {
			return fmt.Errorf("read the App's signing key: %w", err)
		}
		if len(record.StateKey) != len(base) {
			return fmt.Errorf("the key of the Base has %d bytes, not %d", len(record.StateKey), len(base))
		}
		base, seen = posture.SigningKey(record.StateKey), record.Seen
		return nil
	})
	return seed, base, seen, err
}

var parseAppSeed func([]byte) (posture.AppSeed, error) = secret.New

// remember keeps how new a posture the App has seen, and the role that it gives this App
// if it lists it. It never goes back, also if another process of the App has seen a newer
// one meanwhile.
func (s *store) remember(id string, seen posture.Memory, role basev1.Role, at time.Time) error {
	return s.change(id, "store which posture of the Base was seen", func(r *stored) {
		if role != basev1.Role_ROLE_UNSPECIFIED {
			r.Role, r.RoleAt = role, at
		}
		if seen.Epoch == r.Seen.Epoch && (seen.Revision < r.Seen.Revision || seen.Restriction < r.Seen.Restriction) {
			return
		}
		r.Seen = seen
	})
}

// changesSeen returns what the log of changes is verified with.
func (s *store) changesSeen(id string) (base posture.SigningKey, seen changelog.Memory, err error) {
	if _, base, _, err = s.signing(id); err != nil {
		return base, seen, err
	}
	record, err := s.record(id)
	if err != nil {
		return base, seen, err
	}
	return base, record.Changes, nil
}

// rememberChanges is remember for the log of changes.
func (s *store) rememberChanges(id string, seen changelog.Memory) error {
	return s.change(id, "store what was seen of the log of changes", func(r *stored) {
		if seen.Epoch != r.Changes.Epoch || seen.Number > r.Changes.Number {
			r.Changes = seen
		}
	})
}

func (s *store) eventsSeen(id string) (sequence uint64, err error) {
	record, err := s.record(id)
	if err != nil {
		return 0, err
	}
	return record.Events, nil
}

func (s *store) sawEvents(id string, sequence uint64) error {
	return s.change(id, "store which events were seen", func(r *stored) { r.Events = sequence })
}

// renamed stores what the Base is called now. The App's name for it follows, unless
// somebody has chosen another one for it, or another Base has that.
func (s *store) renamed(id, name string) error {
	return s.update("store the new name of the Base", func(tx *state.Tx) error {
		records, err := all(tx)
		if err != nil {
			return err
		}
		record := records[id]
		if record == nil || record.BaseName == name {
			return nil
		}
		delete(records, id)
		follows := record.Name == record.BaseName
		record.BaseName = name
		if follows {
			record.Name = name
			record.Name = freeName(record, records)
		}
		return put(tx, id, record)
	})
}

// The bound of reveals, from the wire protocol: a man in the middle has one
// blind guess at the code with each.
const (
	maxReveals = 3
	revealWait = 180 * time.Second
)

func revealTimes(tx *state.Tx) ([]time.Time, error) {
	raw := tx.Get(bucketReveals, "times")
	if raw == nil {
		return nil, nil
	}
	var times []time.Time
	if err := json.Unmarshal(raw, &times); err != nil {
		return nil, fmt.Errorf("read the times of failed pairings: %w", err)
	}
	return times, nil
}

func putRevealTimes(tx *state.Tx, times []time.Time) error {
	raw, err := json.Marshal(times)
	if err != nil {
		return fmt.Errorf("store the times of failed pairings: %w", err)
	}
	return tx.Put(bucketReveals, "times", raw)
}

// lastReveals returns the latest of those that failed. A time in the future, after
// the clock was set back, is moved to now: it must neither shorten the wait nor
// make it last until the clock is there again.
func lastReveals(tx *state.Tx, now time.Time) ([]time.Time, error) {
	times, err := revealTimes(tx)
	if err != nil {
		return nil, err
	}
	moved := false
	for n, t := range times {
		if t.After(now) {
			times[n], moved = now, true
		}
	}
	if moved {
		err = putRevealTimes(tx, times)
	}
	return times[max(0, len(times)-maxReveals):], err
}

// mayReveal fails while the App has to wait: for revealWait after the last of
// maxReveals that failed within as long a time.
func mayReveal(last []time.Time, now time.Time) error {
	if len(last) < maxReveals {
		return nil
	}
	latest := last[len(last)-1]
	wait := revealWait - now.Sub(latest)
	if latest.Sub(last[0]) >= revealWait || wait <= 0 {
		return nil
	}
	return &Error{
		Kind: ErrTooManyReveals,
		Wait: wait,
		Text: fmt.Sprintf("%d pairings have failed after this App had shown its half; somebody may be guessing, so it waits: try again in %d s", maxReveals, int(wait.Seconds()+0.999)),
	}
}

// checkReveals fails while the App has to wait.
func (s *store) checkReveals(now time.Time) error {
	var last []time.Time
	err := s.update("read the count of failed pairings", func(tx *state.Tx) (err error) {
		last, err = lastReveals(tx, now)
		return err
	})
	if err != nil {
		return err
	}
	return mayReveal(last, now)
}

// addReveal counts a reveal as failed until addPending takes it back. So a reveal during
// which the App was ended counts as well.
func (s *store) addReveal(now time.Time) error {
	return s.update("count the pairing", func(tx *state.Tx) error {
		last, err := lastReveals(tx, now)
		if err != nil {
			return err
		}
		if err := mayReveal(last, now); err != nil {
			return err
		}
		return putRevealTimes(tx, append(last, now))
	})
}
