// Package state stores small, precious state: identities, keys, pairings. A state is one file,
// used by one program at a time, with its whole content in memory.
//
// # Guarantees
//
//   - Update returns nil only when the change is on disk. After a kill, a power cut or a full
//     disk, the file has the complete content before or after the change.
//   - Every flipped bit is detected: a separate, strict parser reads the file, and a digest
//     covers the whole content. Open returns the stored content or an error.
//   - A file that is missing, damaged, of another kind, of a newer version or accessible to
//     others is refused with a message that says so. It is never replaced by an empty file.
//
// # Implementation
//
// The file is a bbolt database with one bucket. bbolt trusts its file: a damaged one makes it
// panic or loop. So bbolt opens the file only after the parser (format.go) has found it intact,
// and it is used for writing only. Reads come from memory.
//
// Each Update commits twice. bbolt keeps two meta pages and uses the newer valid one. If the
// newer one were damaged later, the content before the last Update would return, for example
// with an App that was revoked. The second commit changes nothing; after it both meta pages
// stand for the same content.
//
// A file NAME.lock lies beside the state. It is locked while a program uses the state. It also
// records whether the state was ever made, so that a missing file is not mistaken for a new one.
package state

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// The errors of Open. The returned error is a sentence that contains the path.
var (
	// ErrMissing: there is no state, and Options.Create was not set; or the state existed, and is
	// gone.
	ErrMissing = reason.New("the state is missing")
	// ErrDamaged: the content is not what was stored.
	ErrDamaged = reason.New("the state is damaged")
	// ErrNewer: a newer version of the program wrote it.
	ErrNewer = reason.New("the state was written by a newer version of this program")
	// ErrOlder: an older version wrote it, and this one cannot convert it.
	ErrOlder = reason.New("the state was written by an older version of this program, in a form that this one cannot read")
	// ErrKind: it belongs to another program.
	ErrKind = reason.New("the state belongs to another program")
	// ErrMode: others may read or write it, another user owns it, or it is not a regular file.
	ErrMode = reason.New("the state is not private")
	// ErrInUse: another program is using it.
	ErrInUse = reason.New("another program is running on this state")
	// ErrClosed: the DB was closed.
	ErrClosed = reason.New("the state has been closed")
)

// MaxSize is how large the file may become, in bytes. All of it is in memory.
const MaxSize = 64 << 20

// Bounds of the stored content, in bytes.
const (
	MaxBucketSize = 64
	MaxKeySize    = 1024
	MaxValueSize  = 16 << 20
)

// mode is the mode of the file and of its lock.
const mode fs.FileMode = 0o600

// Options say what is expected of the file.
type Options struct {
	// Kind is the program and its part, such as "bitbox-base middleware". A file
	// of another kind is refused.
	Kind string
	// Schema is the version of the content, from 1. Another one is refused.
	Schema uint64
	// Create makes a new state if there never was one.
	Create bool
	// Wait is how long to wait for another program that uses the state.
	Wait time.Duration
}

// DB is an open state. It is safe for concurrent use.
type DB struct {
	path string
	lock *lock
	file *os.File // bolt's
	bolt *bolt.DB

	writing sync.Mutex // Update and Close hold it while they run

	mu       sync.RWMutex // guards the fields below
	content  content      // never changed in place
	broken   error        // sticky: the content on disk is no longer known
	panicked bool         // bolt must not be touched: its locks may be held
}

// content is everything that is stored. A key is bucket | 0 | key; the bucket's name has no zero
// byte.
type content map[string][]byte

// Keys with an empty bucket are this package's own.
const (
	keyKind   = "\x00kind"
	keySchema = "\x00schema"
	keyDigest = "\x00digest" // of everything else
)

var boltBucket = []byte("state")

// Open opens the state at path. The Err values say what it refuses.
func Open(path string, options Options) (*DB, error) {
	if options.Kind == "" || options.Schema == 0 {
		return nil, reason.Errorf("open the state %s: kind and schema must be given", path)
	}
	db := &DB{path: path}
	if err := db.open(options); err != nil {
		db.release()
		return nil, err
	}
	return db, nil
}

func (db *DB) open(options Options) (err error) {
	path, lockPath := db.path, db.path+".lock"
	if !options.Create && missing(path) && missing(lockPath) {
		return reason.Errorf("open the state %s: %w: there is no such file; check the path", path, ErrMissing)
	}
	if db.lock, err = takeLock(lockPath, options.Wait); err != nil {
		return notLocked(path, options, err)
	}
	if missing(path) {
		existed, err := db.lock.marked()
		switch {
		case err != nil:
			return reason.Errorf("open the state %s: %w", path, err)
		case existed:
			return lost(path)
		case !options.Create:
			return reason.Errorf("open the state %s: %w: there is no such file; check the path", path, ErrMissing)
		}
		if err := create(path, options); err != nil {
			return err
		}
	}
	if db.file, err = openPrivate(path, os.O_RDWR); err != nil {
		return reason.Errorf("open the state %s: %w", path, err)
	}
	if db.content, err = readContent(db.file); err != nil {
		return reason.Errorf("open the state %s: %w; restore the file from a copy, do not start without it", path, err)
	}
	if err := db.content.check(options); err != nil {
		return reason.Errorf("open the state %s: %w", path, err)
	}
	err = db.guarded(func() (err error) {
		db.bolt, err = openBolt(path, func(string, int, os.FileMode) (*os.File, error) { return db.file, nil })
		return err
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return reason.Errorf("open the state %s: %w; end that program first", path, ErrInUse)
	}
	if err != nil {
		return reason.Errorf("open the state %s: %w", path, err)
	}
	// Only now: a state that was never complete never existed.
	if err := db.lock.mark(path); err != nil {
		return reason.Errorf("open the state %s: %w", path, err)
	}
	return nil
}

// Read runs fn on the content of the state at path and writes nothing, not even a missing
// directory, so it works on a read-only disk as well. A state that was never made is empty. It
// refuses the same states as [Open].
func Read(path string, options Options, fn func(*Tx) error) error {
	lock, err := readingLock(path+".lock", options.Wait)
	if err != nil {
		return notLocked(path, options, err)
	}
	marked := false
	if lock != nil {
		defer func() { _ = lock.release() }()
		if marked, err = lock.marked(); err != nil {
			return reason.Errorf("read the state %s: %w", path, err)
		}
	}
	content := content{}
	switch file, err := openPrivate(path, os.O_RDONLY); {
	case errors.Is(err, fs.ErrNotExist) && marked:
		return lost(path)
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return reason.Errorf("read the state %s: %w", path, err)
	default:
		content, err = readContent(file)
		if err := errors.Join(err, file.Close()); err != nil {
			return reason.Errorf("read the state %s: %w; restore the file from a copy, do not start without it", path, err)
		}
		if err := content.check(options); err != nil {
			return reason.Errorf("read the state %s: %w", path, err)
		}
	}
	tx := &Tx{content: content}
	defer tx.end()
	return fn(tx)
}

func notLocked(path string, options Options, err error) error {
	if errors.Is(err, ErrInUse) {
		return reason.Errorf("open the state %s: %w (%s); end that program first, or choose another state directory", path, err, options.Kind)
	}
	return reason.Errorf("open the state %s: %w", path, err)
}

func lost(path string) error {
	return reason.Errorf("open the state %s: %w, though it was there before; put the file back, "+
		"or, if it is lost for good, remove %s.lock to start again with a new identity", path, ErrMissing, path)
}

// check compares the header of the content with the expected one.
func (c content) check(options Options) error {
	if kind := string(c[keyKind]); kind != options.Kind {
		return reason.Errorf("%w: it is of %q, not of %q; check the path", ErrKind, kind, options.Kind)
	}
	if len(c[keySchema]) != 8 {
		return reason.Errorf("%w: it has no version", ErrDamaged)
	}
	switch schema := binary.BigEndian.Uint64(c[keySchema]); {
	case schema > options.Schema:
		return reason.Errorf("%w (version %d, this one knows %d); install the newer version again", ErrNewer, schema, options.Schema)
	case schema < options.Schema:
		return reason.Errorf("%w (version %d, this one needs %d)", ErrOlder, schema, options.Schema)
	}
	return nil
}

// create makes the file under another name and renames it, so that a kill cannot leave half a
// state. The lock is held.
func create(path string, options Options) (err error) {
	temporary := path + ".new"
	defer func() {
		if err != nil {
			err = reason.Errorf("make the state %s: %w", path, err)
			if removal := os.Remove(temporary); removal != nil && !errors.Is(removal, fs.ErrNotExist) {
				err = errors.Join(err, removal)
			}
		}
	}()
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c := content{keyKind: []byte(options.Kind), keySchema: binary.BigEndian.AppendUint64(nil, options.Schema)}
	db, err := openBolt(temporary, func(name string, flag int, perm os.FileMode) (*os.File, error) {
		return os.OpenFile(name, flag|os.O_EXCL, perm)
	})
	if err != nil {
		return err
	}
	if err := errors.Join(commit(db, c, c.digest()), db.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

func openBolt(path string, openFile func(string, int, os.FileMode) (*os.File, error)) (*bolt.DB, error) {
	return bolt.Open(path, mode, &bolt.Options{
		OpenFile: openFile,
		PageSize: pageSize,
		MaxSize:  MaxSize,
		// Zero would wait for ever. Our lock is the file beside the state; this one keeps bbolt's
		// own tools away.
		Timeout:      time.Second,
		NoStatistics: true,
	})
}

// commit writes changes (nil deletes) and the digest of the result, twice. An error means that
// the first commit failed.
func commit(db *bolt.DB, changes content, digest []byte) error {
	err := db.Update(func(tx *bolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists(boltBucket)
		if err != nil {
			return err
		}
		for key, value := range changes {
			if value == nil {
				err = bucket.Delete([]byte(key))
			} else {
				err = bucket.Put([]byte(key), value)
			}
			if err != nil {
				return err
			}
		}
		return bucket.Put([]byte(keyDigest), digest)
	})
	if err != nil {
		return err
	}
	// The content is safe. If this commit fails, there is one meta page less to rely on until the
	// next Update, which is no reason to report that the first one failed.
	_ = db.Update(func(*bolt.Tx) error { return nil })
	return nil
}

// guarded runs code that touches bolt's mapping of the file. If somebody truncates the file
// during that, or the disk fails, the kernel's signal becomes a panic, and the panic an error.
func (db *DB) guarded(run func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			db.panicked = true
			err = reason.Errorf("%w: %v", ErrDamaged, r)
		}
	}()
	return run()
}

// readContent reads and checks the whole file.
func readContent(file *os.File) (content, error) {
	b, err := io.ReadAll(io.NewSectionReader(file, 0, MaxSize+1))
	if err != nil {
		return nil, err
	}
	if len(b) > MaxSize {
		return nil, reason.Errorf("%w: the file has more than %d bytes", ErrDamaged, MaxSize)
	}
	c, err := parse(b)
	if err != nil {
		return nil, reason.Errorf("%w: %w", ErrDamaged, err)
	}
	digest := c[keyDigest]
	delete(c, keyDigest)
	if string(digest) != string(c.digest()) {
		return nil, reason.Errorf("%w: its digest does not match", ErrDamaged)
	}
	return c, nil
}

// digest covers every key and value.
func (c content) digest() []byte {
	h := sha256.New()
	write := func(b []byte) {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
		h.Write(b)
	}
	for _, key := range slices.Sorted(maps.Keys(c)) {
		write([]byte(key))
		write(c[key])
	}
	return h.Sum(nil)
}

// View runs fn on the present content. It does not see later Updates.
func (db *DB) View(fn func(*Tx) error) error {
	db.mu.RLock()
	content, err := db.content, db.broken
	db.mu.RUnlock()
	if err != nil {
		return reason.Errorf("read the state %s: %w", db.path, err)
	}
	tx := &Tx{content: content}
	defer tx.end()
	return fn(tx)
}

// Update runs fn, and stores its changes if it returns nil. When Update returns nil, the change
// is on disk; otherwise it has not happened. One Update runs at a time; fn must not call Update.
func (db *DB) Update(fn func(*Tx) error) error {
	db.writing.Lock()
	defer db.writing.Unlock()
	db.mu.RLock()
	before, err := db.content, db.broken
	db.mu.RUnlock()
	if err != nil {
		return reason.Errorf("change the state %s: %w", db.path, err)
	}
	tx := &Tx{content: before, changes: content{}}
	defer tx.end()
	if err := fn(tx); err != nil {
		return err
	}
	if len(tx.changes) == 0 {
		return nil
	}
	after := tx.merged()
	err = db.guarded(func() error { return commit(db.bolt, tx.changes, after.digest()) })
	db.mu.Lock()
	defer db.mu.Unlock()
	if err == nil {
		db.content = after
		return nil
	}
	if failed := db.verify(before); failed != nil {
		db.broken = reason.Errorf("an earlier write failed (%w), so the content on disk is unknown; start the program again", failed)
	}
	return reason.Errorf("change the state %s: %w; is the disk full or failing?", db.path, err)
}

// verify tells whether the file still has its old content after a commit has failed. A failed
// sync may leave the new content there as well as the old.
func (db *DB) verify(before content) error {
	if db.panicked {
		return ErrDamaged
	}
	now, err := readContent(db.file)
	if err != nil {
		return err
	}
	if string(now.digest()) != string(before.digest()) {
		return reason.New("it was written in part")
	}
	return nil
}

// Path returns the path that Open was given.
func (db *DB) Path() string { return db.path }

// Close ends the use of the state; it waits for a running Update.
func (db *DB) Close() error {
	db.writing.Lock()
	defer db.writing.Unlock()
	db.mu.Lock()
	defer db.mu.Unlock()
	if errors.Is(db.broken, ErrClosed) {
		return nil
	}
	db.broken = ErrClosed
	if err := db.release(); err != nil {
		return reason.Errorf("close the state %s: %w", db.path, err)
	}
	return nil
}

// release closes what open has opened.
func (db *DB) release() error {
	var errs []error
	switch {
	case db.bolt != nil && !db.panicked:
		errs = append(errs, db.guarded(db.bolt.Close))
	case db.file != nil:
		// bolt.Open closes the file when it fails, but not when it panics.
		if err := db.file.Close(); !errors.Is(err, fs.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if db.lock != nil {
		errs = append(errs, db.lock.release())
	}
	return errors.Join(errs...)
}

// Tx reads and changes the state within View or Update.
type Tx struct {
	content content
	changes content // nil in View; a nil value deletes
	ended   bool
}

// end makes later use of the Tx fail, so that it is not lost silently.
func (tx *Tx) end() { tx.ended = true }

// Get returns a copy of the value, nil if there is none. It sees the changes of this Tx.
func (tx *Tx) Get(bucket, key string) []byte {
	value, ok := tx.changes[bucket+"\x00"+key]
	if !ok {
		value = tx.content[bucket+"\x00"+key]
	}
	return slices.Clone(value)
}

// Put stores a copy of value. An empty value is also a value.
func (tx *Tx) Put(bucket, key string, value []byte) error {
	if len(value) > MaxValueSize {
		return reason.Errorf("store %s/%s: %d bytes are more than %d", bucket, key, len(value), MaxValueSize)
	}
	return tx.change(bucket, key, append([]byte{}, value...))
}

// Delete removes a value; deleting a missing one is no error.
func (tx *Tx) Delete(bucket, key string) error {
	if tx.Get(bucket, key) == nil {
		return nil
	}
	return tx.change(bucket, key, nil)
}

func (tx *Tx) change(bucket, key string, value []byte) error {
	switch {
	case tx.changes == nil:
		return reason.Errorf("change %s/%s: a View cannot change the state", bucket, key)
	case tx.ended:
		return reason.Errorf("change %s/%s: the transaction has ended", bucket, key)
	case bucket == "" || len(bucket) > MaxBucketSize || strings.Contains(bucket, "\x00"):
		return reason.Errorf("change %q/%q: a bucket's name has 1 to %d bytes and no zero byte", bucket, key, MaxBucketSize)
	case key == "" || len(key) > MaxKeySize:
		return reason.Errorf("change %s/%q: a key has 1 to %d bytes", bucket, key, MaxKeySize)
	}
	tx.changes[bucket+"\x00"+key] = value
	return nil
}

// ForEach calls fn for each key of the bucket, in byte order, with copies. It ends at fn's first
// error, and returns it.
func (tx *Tx) ForEach(bucket string, fn func(key string, value []byte) error) error {
	all := tx.merged()
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if name, ok := strings.CutPrefix(key, bucket+"\x00"); ok && bucket != "" {
			if err := fn(name, slices.Clone(all[key])); err != nil {
				return err
			}
		}
	}
	return nil
}

// merged is the content with the changes applied.
func (tx *Tx) merged() content {
	if len(tx.changes) == 0 {
		return tx.content
	}
	merged := maps.Clone(tx.content)
	for key, value := range tx.changes {
		if value == nil {
			delete(merged, key)
		} else {
			merged[key] = value
		}
	}
	return merged
}

func missing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}
