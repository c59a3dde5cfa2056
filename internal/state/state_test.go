package state

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"pgregory.net/rapid"
)

var standard = Options{Kind: "test", Schema: 1, Create: true}

func mustOpen(t testing.TB, path string) *DB {
	t.Helper()
	db, err := Open(path, standard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func mustPut(t testing.TB, db *DB, bucket, key, value string) {
	t.Helper()
	if err := db.Update(func(tx *Tx) error { return tx.Put(bucket, key, []byte(value)) }); err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, db *DB, bucket, key string) string {
	t.Helper()
	var value []byte
	if err := db.View(func(tx *Tx) error { value = tx.Get(bucket, key); return nil }); err != nil {
		t.Fatal(err)
	}
	return string(value)
}

// all returns every bucket, key and value.
func all(t testing.TB, db *DB) map[string]string {
	t.Helper()
	found := map[string]string{}
	for key, value := range db.content {
		if !strings.HasPrefix(key, "\x00") {
			found[key] = string(value)
		}
	}
	return found
}

func TestStoredStateSurvivesReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db := mustOpen(t, path)
	mustPut(t, db, "a", "1", "one")
	mustPut(t, db, "a", "2", "")
	mustPut(t, db, "ab", "1", "other bucket")
	mustPut(t, db, "a", "3", "three")
	if err := db.Update(func(tx *Tx) error { return tx.Delete("a", "3") }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatalf("closing twice: %v", err)
	}
	if err := db.View(func(*Tx) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Fatalf("read after closing: %v", err)
	}
	db = mustOpen(t, path)
	var got []string
	err := db.View(func(tx *Tx) error {
		if tx.Get("a", "3") != nil || tx.Get("a", "2") == nil {
			t.Error("the deleted value is there, or the empty one is not")
		}
		return tx.ForEach("a", func(key string, value []byte) error {
			got = append(got, key+"="+string(value))
			return nil
		})
	})
	if want := []string{"1=one", "2="}; err != nil || !slices.Equal(got, want) {
		t.Fatalf("got %q, %v; want %q", got, err, want)
	}
}

func TestAFailedUpdateChangesNothing(t *testing.T) {
	db := mustOpen(t, filepath.Join(t.TempDir(), "state.db"))
	mustPut(t, db, "b", "k", "old")
	failure := errors.New("no")
	err := db.Update(func(tx *Tx) error {
		if err := tx.Put("b", "k", []byte("new")); err != nil {
			return err
		}
		if got := tx.Get("b", "k"); string(got) != "new" {
			t.Errorf("a transaction does not see its own change: %q", got)
		}
		return failure
	})
	if !errors.Is(err, failure) || get(t, db, "b", "k") != "old" {
		t.Fatalf("%v, %q", err, get(t, db, "b", "k"))
	}
	func() {
		defer func() { _ = recover() }()
		_ = db.Update(func(tx *Tx) error { panic("in the middle") })
	}()
	mustPut(t, db, "b", "k", "newer")
}

func TestATransactionRefusesInvalidKeysAndValues(t *testing.T) {
	db := mustOpen(t, filepath.Join(t.TempDir(), "state.db"))
	var leaked *Tx
	err := db.Update(func(tx *Tx) error {
		leaked = tx
		for _, bad := range []struct {
			bucket, key string
			size        int
		}{
			{"", "k", 0}, {"b", "", 0}, {"b\x00", "k", 0}, {strings.Repeat("b", MaxBucketSize+1), "k", 0},
			{"b", strings.Repeat("k", MaxKeySize+1), 0}, {"b", "k", MaxValueSize + 1},
		} {
			if tx.Put(bad.bucket, bad.key, make([]byte, bad.size)) == nil {
				t.Errorf("put %.10q/%.10q with %d bytes", bad.bucket, bad.key, bad.size)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if leaked.Put("b", "k", nil) == nil {
		t.Error("put after the end")
	}
	if err := db.View(func(tx *Tx) error { return tx.Put("b", "k", nil) }); err == nil {
		t.Error("put in a View")
	}
}

func TestReadersSeeWholeUpdatesOnly(t *testing.T) {
	db := mustOpen(t, filepath.Join(t.TempDir(), "state.db"))
	var readers sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				_ = db.View(func(tx *Tx) error {
					if a, b := tx.Get("b", "1"), tx.Get("b", "2"); !bytes.Equal(a, b) {
						t.Errorf("%q and %q", a, b)
					}
					return nil
				})
				runtime.Gosched()
			}
		})
	}
	for i := range 50 {
		err := db.Update(func(tx *Tx) error {
			value := fmt.Appendf(nil, "%d", i)
			return errors.Join(tx.Put("b", "1", value), tx.Put("b", "2", value))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	readers.Wait()
}

func TestFilesArePrivateToTheirOwner(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes say nothing on Windows")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "state.db")
	if err := mustOpen(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, path + ".lock"} {
		for _, wrong := range []fs.FileMode{0o640, 0o604, 0o666, 0o700, 0o400} {
			if err := os.Chmod(name, wrong); err != nil {
				t.Fatal(err)
			}
			// Without root, opening 0400 fails before its mode is checked.
			if _, err := Open(path, standard); !errors.Is(err, ErrMode) && !errors.Is(err, fs.ErrPermission) {
				t.Errorf("%s with mode %04o: %v", name, wrong, err)
			}
		}
		if err := os.Chmod(name, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(link, standard); !errors.Is(err, ErrMode) {
		t.Errorf("a link: %v", err)
	}
	if _, err := Open(dir, standard); err == nil {
		t.Error("a directory was opened")
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 12345, -1); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, standard); !errors.Is(err, ErrMode) {
			t.Errorf("somebody else's file: %v", err)
		}
	}
}

func TestAMissingStateIsNeverSilentlyReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	if _, err := Open(path, Options{Kind: "test", Schema: 1}); !errors.Is(err, ErrMissing) {
		t.Fatalf("without Create: %v", err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 0 {
		t.Fatalf("a refused Open left %v", entries)
	}
	if err := mustOpen(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, standard); !errors.Is(err, ErrMissing) {
		t.Fatalf("with the file removed: %v", err)
	}
	if !missing(path) {
		t.Fatal("a new file was made")
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, standard); !errors.Is(err, ErrDamaged) {
		t.Fatalf("with an empty file: %v", err)
	}
	if err := errors.Join(os.Remove(path), os.Remove(path+".lock")); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, path) // if both were removed by hand, it is a new start
}

func TestStateOfAnotherProgramOrVersionIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db, err := Open(path, Options{Kind: "test", Schema: 2, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for want, options := range map[error]Options{
		ErrKind:  {Kind: "other", Schema: 2},
		ErrNewer: {Kind: "test", Schema: 1},
		ErrOlder: {Kind: "test", Schema: 3},
		nil:      {Kind: "test", Schema: 2},
	} {
		db, err := Open(path, options)
		if !errors.Is(err, want) {
			t.Errorf("%+v: %v", options, err)
		}
		if err == nil {
			_ = db.Close()
		}
	}
}

func TestSecondProgramIsRefusedWhileTheFirstRuns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db := mustOpen(t, path)
	mustPut(t, db, "b", "k", "v")
	if _, err := Open(path, standard); !errors.Is(err, ErrInUse) {
		t.Fatalf("a second Open: %v", err)
	}
	// A program that waits gets the state when the first has ended.
	opened := make(chan error)
	go func() {
		options := standard
		options.Wait = time.Minute
		second, err := Open(path, options)
		if err == nil {
			err = second.Close()
		}
		opened <- err
	}()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
}

// fill stores enough for branch pages, overflow pages and free ones.
func fill(t testing.TB, db *DB) {
	t.Helper()
	for round := range 3 {
		err := db.Update(func(tx *Tx) error {
			for i := range 25 {
				if err := tx.Put("bucket", fmt.Sprintf("key-%03d", i), bytes.Repeat([]byte{byte(i), byte(round)}, 100)); err != nil {
					return err
				}
			}
			return tx.Put("bucket", "large", bytes.Repeat([]byte{byte(round)}, 5000))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// allBits makes the test below flip every bit, which takes a minute.
var allBits = flag.Bool("state.allbits", false, "flip every bit of the file, not one in 23")

// The test flips the bits of a file one after another: the result is the stored content, or an
// error.
func TestEveryFlippedBitIsDetected(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db := mustOpen(t, path)
	fill(t, db)
	want := all(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	// The parser alone. 23 has no factor in common with 8, so every position in a byte is tried …
	same, refused, step := 0, 0, 23
	if *allBits {
		step = 1
	}
	for bit := 0; bit < len(file)*8; bit += step {
		file[bit/8] ^= 1 << (bit % 8)
		c, err := parse(file)
		if err == nil {
			digest := c[keyDigest]
			delete(c, keyDigest)
			if string(digest) != string(c.digest()) {
				err = ErrDamaged
			}
		}
		if err != nil {
			refused++
		} else {
			same++
			if !maps.EqualFunc(c, db.content, bytes.Equal) {
				t.Fatalf("bit %d: other content is taken for genuine", bit)
			}
		}
		file[bit/8] ^= 1 << (bit % 8)
	}
	t.Logf("%d bytes: %d flips harmless, %d refused", len(file), same, refused)
	if same == 0 || refused == 0 {
		t.Fatal("the test does not test anything")
	}

	// … and Open, followed by a change: damage must not mislead bbolt when it writes.
	for bit := 0; bit < len(file)*8; bit += 199 * step {
		file[bit/8] ^= 1 << (bit % 8)
		damaged := filepath.Join(t.TempDir(), "state.db")
		if err := os.WriteFile(damaged, file, 0o600); err != nil {
			t.Fatal(err)
		}
		file[bit/8] ^= 1 << (bit % 8)
		db, err := Open(damaged, standard)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("bit %d: %v", bit, err)
			}
			continue
		}
		if got := all(t, db); !maps.Equal(got, want) {
			t.Fatalf("bit %d: Open returns other content", bit)
		}
		mustPut(t, db, "bucket", "another", "value")
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = mustOpen(t, damaged)
		if got := all(t, db); len(got) != len(want)+1 {
			t.Fatalf("bit %d: %d values after a change, not %d", bit, len(got), len(want)+1)
		}
		_ = db.Close()
	}
}

// The test shows why each Update commits twice: with one commit, the same damage brings the
// previous content back, and nobody notices.
func TestNewestMetaPageMayBeLost(t *testing.T) {
	for _, commits := range []int{1, 2} {
		path := filepath.Join(t.TempDir(), "state.db")
		db := mustOpen(t, path)
		mustPut(t, db, "apps", "thief", "active")
		if commits == 2 {
			mustPut(t, db, "apps", "thief", "revoked")
		} else {
			after := maps.Clone(db.content)
			after["apps\x00thief"] = []byte("revoked")
			err := db.bolt.Update(func(tx *bolt.Tx) error {
				bucket := tx.Bucket(boltBucket)
				return errors.Join(bucket.Put([]byte("apps\x00thief"), []byte("revoked")), bucket.Put([]byte(keyDigest), after.digest()))
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		newest := 0
		if native.Uint64(file[pageSize+pageHeaderSize+48:]) > native.Uint64(file[pageHeaderSize+48:]) {
			newest = pageSize
		}
		file[newest+pageHeaderSize+60] ^= 4
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		want := map[int]string{1: "active", 2: "revoked"}[commits]
		if got := get(t, mustOpen(t, path), "apps", "thief"); got != want {
			t.Errorf("with %d commits the thief is %s", commits, got)
		}
	}
}

func TestATruncatedFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db := mustOpen(t, path)
	fill(t, db)
	want := all(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for size := 0; size < len(file); size += 1000 {
		if err := os.WriteFile(path, file[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := Open(path, standard)
		if err == nil {
			// bbolt makes files larger than it needs.
			if !maps.Equal(all(t, db), want) {
				t.Fatalf("%d bytes: other content", size)
			}
			_ = db.Close()
		} else if !errors.Is(err, ErrDamaged) {
			t.Fatalf("%d bytes: %v", size, err)
		}
	}
}

// bbolt writes through a mapping of the file, and touching a truncated part is a SIGBUS.
func TestFileCutOffWhileOpenIsAnErrorNotACrash(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not cut off a file that is mapped")
	}
	path := filepath.Join(t.TempDir(), "state.db")
	db := mustOpen(t, path)
	fill(t, db)
	if err := os.Truncate(path, 2*pageSize); err != nil {
		t.Fatal(err)
	}
	put := func(tx *Tx) error { return tx.Put("bucket", "key", []byte("value")) }
	if err := db.Update(put); !errors.Is(err, ErrDamaged) {
		t.Fatalf("the first change: %v", err)
	}
	if err := db.Update(put); err == nil {
		t.Fatal("a later change was taken")
	}
	if err := db.View(func(*Tx) error { return nil }); err == nil {
		t.Fatal("what is on disk is not known, and it is read all the same")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, standard); !errors.Is(err, ErrDamaged) {
		t.Fatalf("opened again: %v", err)
	}
}

// The test makes random changes and compares with a map, and reopens the state. It also shows
// that the parser accepts everything that bbolt writes.
func TestStoreBehavesLikeAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "state")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		path := filepath.Join(dir, "state.db")
		db, err := Open(path, standard)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		want := map[string]string{}
		for range rapid.IntRange(1, 4).Draw(t, "updates") {
			err := db.Update(func(tx *Tx) error {
				for range rapid.IntRange(1, 150).Draw(t, "changes") {
					key := fmt.Sprintf("%03d", rapid.IntRange(0, 200).Draw(t, "key"))
					if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
						delete(want, "b\x00"+key)
						if err := tx.Delete("b", key); err != nil {
							return err
						}
						continue
					}
					value := strings.Repeat("v", rapid.SampledFrom([]int{0, 1, 80, 900, 9000}).Draw(t, "size"))
					want["b\x00"+key] = value
					if err := tx.Put("b", key, []byte(value)); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if rapid.Bool().Draw(t, "reopen") {
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
				if db, err = Open(path, standard); err != nil {
					t.Fatal(err)
				}
			}
			found := map[string]string{}
			err = db.View(func(tx *Tx) error {
				return tx.ForEach("b", func(key string, value []byte) error { found["b\x00"+key] = string(value); return nil })
			})
			if err != nil || !maps.Equal(found, want) {
				t.Fatalf("%v: %d values, want %d", err, len(found), len(want))
			}
		}
	})
}

// The fuzz target changes bytes of a genuine file, and corrects the checksums of its meta pages,
// so that it reaches the code behind them. The parser must neither crash nor run for ever, and
// its result must be the genuine one, or one that the digest detects.
func FuzzParse(f *testing.F) {
	path := filepath.Join(f.TempDir(), "state.db")
	db := mustOpen(f, path)
	fill(f, db)
	genuine, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	const editSize = 5 // offset (3) | value (2)
	f.Add([]byte{})
	f.Add([]byte{0, 0, pageHeaderSize + 16, 7, 0})         // the root of the first meta
	f.Add([]byte{0, 2*pageSize>>8 + 1, 10, 0xFF, 0xFF})    // a count
	f.Add([]byte{0, 3 * pageSize >> 8, 12, 0xFF, 0, 0, 1}) // an overflow
	f.Fuzz(func(t *testing.T, edits []byte) {
		file := slices.Clone(genuine)
		for edit := range slices.Chunk(edits, editSize) {
			if len(edit) < editSize {
				break
			}
			offset := (int(edit[0])<<16 | int(edit[1])<<8 | int(edit[2])) % (len(file) - 1)
			copy(file[offset:], edit[3:])
		}
		for start := pageHeaderSize; start <= pageSize+pageHeaderSize; start += pageSize {
			sum := fnv.New64a()
			sum.Write(file[start : start+56])
			native.PutUint64(file[start+56:], sum.Sum64())
		}
		c, err := parse(file)
		if err != nil {
			return
		}
		digest := c[keyDigest]
		delete(c, keyDigest)
		if string(digest) == string(c.digest()) && !maps.EqualFunc(c, db.content, bytes.Equal) {
			t.Fatal("other content is taken for genuine")
		}
	})
}
