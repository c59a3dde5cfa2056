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
	// storeWait is how long to wait for another process of the App. Each holds the file for only
	// a few milliseconds.
	storeWait = 10 * time.Second

	bucketBases   = "bases"   // by id: a stored, as JSON
	bucketReveals = "reveals" // the key "times": times of failed reveals, as JSON

	// maxAddresses is how many addresses of a Base are remembered.
	maxAddresses = 4
)

// stored is a pairing in the App's database. Its secrets are bytes here, and leave this file only
// as keys.
type stored struct {
	Name     string       `json:"name"`
	State    PairingState `json:"state"`
	BaseKey  []byte       `json:"base_key"`
	StateKey []byte       `json:"state_key"`
	BaseName string       `json:"base_name"`
	AppName  string       `json:"app_name"`
	Role     basev1.Role  `json:"role"`
	RoleAt   time.Time    `json:"role_at,omitzero"` // zero: the role is from the pairing
	PairedAt time.Time    `json:"paired_at"`
	// Ceiling is above every connection number that was used (counter.go).
	Ceiling   uint64   `json:"ceiling"`
	Addresses []string `json:"addresses"`
	// Silences are the times of handshakes without an answer, per address, as long as they count
	// (silence.go).
	Silences map[string][]time.Time `json:"silences,omitempty"`
	// Seen is the newest posture of the Base that the App has verified.
	Seen posture.Memory `json:"seen"`
	// Changes is the part of the log of changes that the App has verified; Events is the sequence
	// of the last event that it has shown. Older Apps do not know these fields, and drop them.
	Changes changelog.Memory `json:"changes,omitzero"`
	Events  uint64           `json:"events,omitempty"`

	Static    []byte `json:"static"`
	Signing   []byte `json:"signing"` // the seed of K_sign
	Pair      []byte `json:"pair"`
	Discovery []byte `json:"discovery"`

	// Claim is set if a provisioning file has promised the pairing. The keys of the Base stay empty
	// until the App has met it.
	Claim *storedClaim `json:"claim,omitempty"`
}

// pairing is a stored pairing with its keys parsed.
type pairing struct {
	Base
	static    noiseconn.StaticKey
	pair      noiseconn.PairKey
	discovery noiseconn.DiscoveryKey
	claim     *claim // nil unless a provisioning file has promised it
	ceiling   uint64 // see counter.go; 0: no connection yet
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
	claim, err := s.Claim.parse()
	if err != nil {
		return nil, err
	}
	var base noiseconn.PublicKey
	var pair noiseconn.PairKey
	var discovery noiseconn.DiscoveryKey
	if s.State == Unclaimed && claim != nil {
		discovery = claim.discovery
	} else {
		var errs [3]error
		base, errs[0] = noiseconn.ParsePublicKey(s.BaseKey)
		pair, errs[1] = noiseconn.ParsePairKey(s.Pair)
		discovery, errs[2] = noiseconn.ParseDiscoveryKey(s.Discovery)
		if len(s.StateKey) != ed25519.PublicKeySize {
			errs[0] = errors.New("a signing key has a wrong length")
		}
		if err := errors.Join(errs[:]...); err != nil {
			return nil, err
		}
	}
	if len(s.Signing) != ed25519.SeedSize {
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
		static: static, pair: pair, discovery: discovery, claim: claim,
		ceiling: s.Ceiling,
	}, nil
}

// store is the App's database. It is open only while it is used, so several processes of the App
// can run.
type store struct {
	path string
	mu   sync.Mutex // one transaction of this process at a time

	counting sync.Mutex // one connection number at a time

	caching sync.Mutex // guards cached
	cached  *contents  // nil: nothing is cached

	stored    func()             // called after each write, if set
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
	if err = errors.Join(db.Update(fn), db.Close()); err == nil && s.stored != nil {
		s.stored()
	}
	return explainStorage(err, what)
}

// view writes nothing: reading works on a read-only disk, and does not create the directory of a
// mistyped name.
func (s *store) view(what string, fn func(*state.Tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return explainStorage(state.Read(s.path, storeOptions, fn), what)
}

var storeOptions = state.Options{Kind: storeKind, Schema: storeSchema, Create: true, Wait: storeWait}

// explainStorage turns a database error into a sentence; errors that already have one pass
// unchanged.
func explainStorage(err error, what string) error {
	var known *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case errors.Is(err, syscall.ENOSPC):
		return fail(ErrStorage, err, "%s: the disk is full; make room and try again; nothing that was stored is lost (%v)", what, err)
	case errors.Is(err, syscall.EROFS):
		return fail(ErrStorage, err, "%s: the App's directory is on a read-only disk; choose another with --dir (%v)", what, err)
	case errors.Is(err, fs.ErrPermission):
		return fail(ErrStorage, err, "%s: permission denied; check who owns the App's directory (%v)", what, err)
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
		if s.State == unmetImage {
			return nil
		}
		found[id] = s
		return nil
	})
	return found, err
}

// unmetImage is the state that versions before claims gave to an image whose board was never
// met. No Base of today answers to such an image.
const unmetImage PairingState = "pre-paired"

// contents are what the database held when it was read. They are never changed.
type contents struct {
	file     fs.FileInfo // of the database
	records  map[string]*stored
	pairings map[string]*pairing
}

// cacheAfter is how long the database must be unchanged before its content is cached. A later
// change within the resolution of the file system's clock would not be noticed.
const cacheAfter = time.Second

// read returns the content of the database. As long as the file is unchanged, it is not opened
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
			// The keys are in the pairing, in types that cannot be printed.
			record.Static, record.Signing, record.Pair, record.Discovery, record.Claim = nil, nil, nil, nil, nil
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

// record returns the stored pairing, without its keys.
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

// addPending stores a new pairing under a free name, and forgets the reveal that led to it.
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

// add stores a new pairing under a free name.
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

// freeName makes the wanted name unique. A new pairing may take the name of a revoked pairing, or
// of one with the same Base that was never completed.
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

// replaces tells whether a pairing that becomes active replaces another one: one with the same
// Base that can no longer be used, or one of the same name with a Base that was reset.
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

// revoke marks a pairing as revoked. It stays until the user forgets it.
func (s *store) revoke(id string) error {
	return s.change(id, "store that the App was revoked", func(r *stored) { r.State = Revoked })
}

// reset marks that this App has wiped the Base.
func (s *store) reset(id string) error {
	return s.change(id, "store that the Base was reset", func(r *stored) { r.State = Reset })
}

// learnRole stores the role that the Base reports for this App.
func (s *store) learnRole(id string, role basev1.Role, at time.Time) error {
	return s.change(id, "store the role of this App", func(r *stored) { r.Role, r.RoleAt = role, at })
}

// sawAt stores the address at which a Base has proved itself, the latest first.
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

// signing returns the App's signing key, and the key that verifies the Base's posture.
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

// remember stores how new a posture the App has seen. It never goes back, even if another process of
// the App has seen a newer one meanwhile.
func (s *store) remember(id string, seen posture.Memory) error {
	return s.change(id, "store which posture of the Base was seen", func(r *stored) {
		if seen.Epoch == r.Seen.Epoch && (seen.Revision < r.Seen.Revision || seen.Restriction < r.Seen.Restriction) {
			return
		}
		r.Seen = seen
	})
}

// claimKey returns K_sign of a pairing that a claim promises.
func (s *store) claimKey(id string) (key ed25519.PrivateKey, err error) {
	err = s.view("read the key of a claim", func(tx *state.Tx) error {
		record, err := get(tx, id)
		if err != nil {
			return err
		}
		if len(record.Signing) != ed25519.SeedSize {
			return errors.New("a signing key has a wrong length")
		}
		key = ed25519.NewKeyFromSeed(record.Signing)
		return nil
	})
	return key, err
}

// changesSeen returns what the log of changes is verified against.
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

// renamed stores the Base's new name. The App's name for the Base follows, unless the user has
// chosen another one, or another Base has that name.
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

// The limit of reveals, from the wire protocol: each gives a man in the middle one blind guess at
// the code.
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

// lastReveals returns the latest failed reveals. A time in the future, after the clock was set
// back, becomes now: it must neither shorten the wait nor extend it until the clock is there
// again.
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

// mayReveal fails while the App has to wait: for revealWait after the last of maxReveals failures
// within that time.
func mayReveal(last []time.Time, now time.Time) error {
	if len(last) < maxReveals {
		return nil
	}
	latest := last[len(last)-1]
	wait := revealWait - now.Sub(latest)
	if latest.Sub(last[0]) >= revealWait || wait <= 0 {
		return nil
	}
	known := fail(ErrTooManyReveals, nil,
		"%d pairings failed after this App had revealed its half, so somebody may be guessing the code; try again in %d s",
		maxReveals, int(wait.Seconds()+0.999))
	known.Wait = wait
	return known
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

// addReveal counts a reveal as failed until addPending takes it back. So a reveal counts even if
// the App is ended during it.
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
