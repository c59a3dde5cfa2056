package update

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

// Why a release is not taken.
var (
	// ErrNoKey: nobody's releases are trusted.
	ErrNoKey = errors.New("this Base was built without a release key, so it takes no updates over the channel")
	// ErrNotForThis: it is genuine, and not for this Base.
	ErrNotForThis = errors.New("the release is not for this Base")
	// ErrBusy: another update is under way.
	ErrBusy = errors.New("another update is under way; wait until it has ended")
	// ErrNoUpload: there is no such upload, or no more.
	ErrNoUpload = errors.New("there is no such upload (any more); begin again")
	// ErrOutOfOrder: a piece does not continue the one before.
	ErrOutOfOrder = errors.New("the pieces of the release came in another order; begin again")
	// ErrNoSpace: the disk is full.
	ErrNoSpace = errors.New("there is not enough room on the Base for the update; free some and try again")
)

const (
	// MaxPiece is the longest piece of an upload in bytes, so that it fits in a message.
	MaxPiece = 512 << 10
	// uploadIdle is how long the next piece is waited for.
	uploadIdle = 30 * time.Second
	// roomFactor is how much room has to be free, in sizes of the package: for itself,
	// what it unpacks to, the version before and what dpkg keeps meanwhile.
	roomFactor = 6
	// uploadIDSize is the length of an upload's name in bytes.
	uploadIDSize = 16
)

// Machine is what a Receiver asks of the machine.
type Machine interface {
	// Architecture is dpkg's name for it.
	Architecture(ctx context.Context) (string, error)
	// Installed is the version of the package that is installed.
	Installed(ctx context.Context) (string, error)
	// Newer tells whether a version is newer than another one, by dpkg's rules.
	Newer(ctx context.Context, version, than string) (bool, error)
	// Describe says what is in a package. It is asked about verified ones only.
	Describe(ctx context.Context, path string) (Package, error)
	// Start starts Unit and does not wait for it.
	Start(ctx context.Context) error
}

// Package is what a Debian package says of itself.
type Package struct{ Name, Version, Architecture string }

// PackageName is the only package that is ever installed.
const PackageName = "bitbox-base"

// Receiver takes releases. One upload at a time; what is not completed is removed.
type Receiver struct {
	store   Store
	machine Machine
	key     ed25519.PublicKey
	// program is copied: what will install.
	program string
	// idle, free and write are replaced in tests.
	idle  time.Duration
	free  func(directory string) (uint64, error)
	write func(file *os.File, b []byte) (int, error)

	mu     sync.Mutex
	upload *upload // nil: none
}

type upload struct {
	id      [uploadIDSize]byte
	header  release.Header
	signed  []byte // the header's bytes
	from    string
	file    *os.File
	hash    hash.Hash
	size    uint64
	expires *time.Timer
}

// NewReceiver returns a Receiver, and removes what one before it has left unfinished.
// Without a key it refuses everything.
func NewReceiver(store Store, machine Machine, key ed25519.PublicKey) (*Receiver, error) {
	r := &Receiver{
		store: store, machine: machine, key: key, program: "/proc/self/exe",
		idle: uploadIdle, free: freeSpace, write: (*os.File).Write,
	}
	if err := store.remove(incomingFile); err != nil {
		return nil, fmt.Errorf("remove an unfinished upload: %w", err)
	}
	return r, nil
}

// freeSpace is what is left for root on a file system, in bytes.
func freeSpace(directory string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(directory, &s); err != nil {
		return 0, fmt.Errorf("ask for the room in %s: %w", directory, err)
	}
	return s.Bfree * uint64(s.Bsize), nil
}

// TakesUpdates tells whether a release key was built in.
func (r *Receiver) TakesUpdates() bool { return len(r.key) > 0 }

// Journal returns what is known of the last update.
func (r *Receiver) Journal() (Journal, error) { return r.store.Journal() }

// Installed is the version of the package that is installed.
func (r *Receiver) Installed(ctx context.Context) (string, error) { return r.machine.Installed(ctx) }

// Begin looks at a header, and returns the name of an upload for what follows it.
// Whatever can be refused is refused here, before anything is stored.
func (r *Receiver) Begin(ctx context.Context, header []byte) (id []byte, err error) {
	if len(r.key) == 0 {
		return nil, ErrNoKey
	}
	h, err := release.Verify(header, r.key)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.upload != nil {
		return nil, ErrBusy
	}
	if err := r.idleLocked(); err != nil {
		return nil, err
	}
	from, err := r.isForThis(ctx, h)
	if err != nil {
		return nil, err
	}
	free, err := r.free(r.store.directory)
	if err != nil {
		return nil, err
	}
	if free < roomFactor*h.Size {
		return nil, fmt.Errorf("%w: %d MiB are free, and %d are needed", ErrNoSpace, free>>20, roomFactor*h.Size>>20+1)
	}
	u := &upload{header: h, signed: header, from: from, hash: sha256.New()}
	if _, err := io.ReadFull(rand.Reader, u.id[:]); err != nil {
		return nil, fmt.Errorf("read %d random bytes: %w", len(u.id), err)
	}
	if u.file, err = os.OpenFile(r.store.path(incomingFile), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600); err != nil {
		return nil, fmt.Errorf("make a file for the update: %w", asNoSpace(err))
	}
	u.expires = time.AfterFunc(r.idle, func() { r.Abort(u.id[:]) })
	r.upload = u
	return u.id[:], nil
}

// idleLocked refuses to begin while something is being installed.
func (r *Receiver) idleLocked() error {
	j, err := r.store.Journal()
	if err != nil {
		return err
	}
	if j.Phase != "" && !j.Phase.Ended() {
		return ErrBusy
	}
	return nil
}

// isForThis compares what was signed with the machine, and returns the version that is
// installed.
func (r *Receiver) isForThis(ctx context.Context, h release.Header) (from string, err error) {
	architecture, err := r.machine.Architecture(ctx)
	if err != nil {
		return "", err
	}
	if h.Architecture != architecture {
		return "", fmt.Errorf("%w: it is for %s, and this is %s", ErrNotForThis, h.Architecture, architecture)
	}
	if from, err = r.machine.Installed(ctx); err != nil {
		return "", err
	}
	newer, err := r.machine.Newer(ctx, h.Version, from)
	if err != nil {
		return "", err
	}
	if !newer {
		return "", fmt.Errorf("%w: it is version %s, and version %s is installed; only a newer one is taken", ErrNotForThis, h.Version, from)
	}
	return from, nil
}

// Piece appends to an upload. offset is how much of the package came before.
func (r *Receiver) Piece(id []byte, offset uint64, b []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	u, err := r.theLocked(id)
	if err != nil {
		return err
	}
	if err := r.appendLocked(u, offset, b); err != nil {
		r.dropLocked()
		return err
	}
	return nil
}

func (r *Receiver) appendLocked(u *upload, offset uint64, b []byte) error {
	switch {
	case offset != u.size:
		return ErrOutOfOrder
	case len(b) == 0 || len(b) > MaxPiece:
		return fmt.Errorf("%w: a piece has 1 to %d bytes, not %d", ErrOutOfOrder, MaxPiece, len(b))
	case uint64(len(b)) > u.header.Size-u.size:
		return fmt.Errorf("%w: it is longer than the %d bytes that were signed", release.ErrDamaged, u.header.Size)
	}
	if _, err := r.write(u.file, b); err != nil {
		return fmt.Errorf("store the update: %w", asNoSpace(err))
	}
	u.hash.Write(b)
	u.size += uint64(len(b))
	u.expires.Reset(r.idle)
	return nil
}

func (r *Receiver) theLocked(id []byte) (*upload, error) {
	if r.upload == nil || string(id) != string(r.upload.id[:]) {
		return nil, ErrNoUpload
	}
	return r.upload, nil
}

// Abort ends an upload and removes what has arrived of it. Of another upload, and of one
// that has ended, it takes no notice.
func (r *Receiver) Abort(id []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.theLocked(id); err == nil {
		r.dropLocked()
	}
}

func (r *Receiver) dropLocked() {
	r.upload.expires.Stop()
	_ = r.upload.file.Close()
	_ = r.store.remove(incomingFile) // else the next start does it
	r.upload = nil
}

// Finish verifies what has arrived, keeps it, and has it installed. The Journal returned is
// that of the update that has begun.
func (r *Receiver) Finish(ctx context.Context, id []byte) (Journal, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	u, err := r.theLocked(id)
	if err != nil {
		return Journal{}, err
	}
	defer r.dropLocked()
	if err := r.keep(ctx, u); err != nil {
		return Journal{}, err
	}
	j := Journal{
		ID: hex.EncodeToString(u.id[:]), From: u.from, To: u.header.Version,
		Phase: Staged, Step: "the release is verified", Began: time.Now().UTC(),
	}
	if err := r.store.write(j); err != nil {
		return Journal{}, asNoSpace(err)
	}
	if err := r.machine.Start(ctx); err != nil {
		j.Phase, j.Reason, j.Ended = Undone, "the installation could not be started", time.Now().UTC()
		return Journal{}, errors.Join(err, r.store.write(j), r.store.remove(packageFile, headerFile, upgraderFile))
	}
	return j, nil
}

// keep puts everything in place that the Installer needs.
func (r *Receiver) keep(ctx context.Context, u *upload) error {
	if u.size != u.header.Size || [sha256.Size]byte(u.hash.Sum(nil)) != u.header.Hash {
		return release.ErrDamaged
	}
	if err := u.file.Sync(); err != nil {
		return fmt.Errorf("store the update: %w", asNoSpace(err))
	}
	if err := describes(ctx, r.machine, r.store.path(incomingFile), u.header); err != nil {
		return err
	}
	if err := copyProgram(r.store.path(upgraderFile), r.program); err != nil {
		return asNoSpace(err)
	}
	if err := atomicfile.WriteFileAtomic(r.store.path(headerFile), u.signed, 0o600); err != nil {
		return asNoSpace(err)
	}
	if err := os.Rename(r.store.path(incomingFile), r.store.path(packageFile)); err != nil {
		return fmt.Errorf("store the update: %w", err)
	}
	return atomicfile.SyncDir(r.store.directory)
}

// describes tells whether the package is what its header says.
func describes(ctx context.Context, machine interface {
	Describe(ctx context.Context, path string) (Package, error)
}, path string, h release.Header) error {
	is, err := machine.Describe(ctx, path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotForThis, err)
	}
	if want := (Package{PackageName, h.Version, h.Architecture}); is != want {
		return fmt.Errorf("%w: it holds the package %q %q for %q, not %q %q for %q", ErrNotForThis,
			is.Name, is.Version, is.Architecture, want.Name, want.Version, want.Architecture)
	}
	return nil
}

// maxProgramSize bounds the copy, in bytes; the program has some 20 MiB.
const maxProgramSize = 256 << 20

// copyProgram puts a copy of a program on disk that can be run.
func copyProgram(to, from string) error {
	b, err := readAtMost(from, maxProgramSize)
	if err == nil {
		err = atomicfile.WriteFileAtomic(to, b, 0o700)
	}
	if err != nil {
		return fmt.Errorf("keep the program that goes back: %w", err)
	}
	return nil
}

// asNoSpace gives a full disk its sentence.
func asNoSpace(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}
