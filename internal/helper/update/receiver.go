package update

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Why a release is not taken.
var (
	// ErrNoKey: nobody's releases are trusted.
	ErrNoKey = reason.New("this Base was built without a release key, so it takes no updates over the channel")
	// ErrNotForThis: it is genuine, and not for this Base.
	ErrNotForThis = reason.New("the release is not for this Base")
	// ErrBusy: another update is under way.
	ErrBusy = reason.New("another update is under way; wait until it has ended")
	// ErrNoUpload: there is no such upload, or no longer.
	ErrNoUpload = reason.New("there is no such upload, or no longer; begin again")
	// ErrNotOnTrial: no version waits for an App.
	ErrNotOnTrial = reason.New("no such update waits to be confirmed")
	// ErrOutOfOrder: a piece does not continue the one before.
	ErrOutOfOrder = reason.New("the pieces of the release came in another order; begin again")
	// ErrNoSpace: the disk is full.
	ErrNoSpace = reason.New("there is not enough room on the Base for the update; free some and try again")
)

const (
	// MaxPiece is the longest piece of an upload in bytes, so that it fits in a message.
	MaxPiece = 512 << 10
	// uploadIdle is how long the next piece is waited for.
	uploadIdle = 30 * time.Second
	// roomFactor is how much room has to be free, in sizes of the package: for itself,
	// what it unpacks to, the previous version and what dpkg keeps meanwhile.
	roomFactor = 6
	// imageRoom is how much room is left beside an image, in bytes: it is stored once.
	imageRoom = 64 << 20
	// partialAge is how long a part of an image is kept for the App to go on with.
	partialAge = 24 * time.Hour
	// uploadIDSize is the length of an upload's name in bytes.
	uploadIDSize = 16
)

// Machine is what a Receiver asks of the machine.
type Machine interface {
	// Architecture is dpkg's name for it.
	Architecture(ctx context.Context) (string, error)
	// Installed is the version of the package that is installed, or of the image that runs.
	Installed(ctx context.Context) (string, error)
	// IsImage tells whether it runs the image, which takes whole images; else it takes packages.
	IsImage() bool
	// Describe says what is in a package. It is asked about verified ones only.
	Describe(ctx context.Context, path string) (Package, error)
	// Start starts Unit, or SlotsUnit on an image, and does not wait for it.
	Start(ctx context.Context) error
}

// Package is what a Debian package says of itself.
type Package struct{ Name, Version, Architecture string }

// PackageName is the only package that is ever installed.
const PackageName = "bitbox-base"

// Receiver takes releases, one upload at a time. It removes an incomplete package. It keeps an
// incomplete image for a day, so that its App can go on with it.
type Receiver struct {
	store   Store
	machine Machine
	key     ed25519.PublicKey
	broken  error // why it refuses everything, although there is a key
	// program is copied: what will install.
	program string
	// idle, free and write are replaced in tests.
	idle  time.Duration
	free  func(directory string) (uint64, error)
	write func(file *os.File, b []byte) (int, error)

	mu     sync.Mutex
	upload *upload // nil: none
	// beginning: a call of Begin verifies a part, without mu.
	beginning bool
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
// Without a key it refuses everything. So does the one that is returned with an error.
func NewReceiver(store Store, machine Machine, key ed25519.PublicKey) (*Receiver, error) {
	r := &Receiver{
		store: store, machine: machine, key: key, program: "/proc/self/exe",
		idle: uploadIdle, free: freeSpace, write: (*os.File).Write,
	}
	err := store.remove(incomingFile)
	if err == nil {
		err = r.forgetOldPart()
	}
	if err != nil {
		r.key, r.broken = nil, reason.Errorf("remove an unfinished upload: %w", err)
		return r, r.broken
	}
	return r, nil
}

// freeSpace is what is left for root on a file system, in bytes.
func freeSpace(directory string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(directory, &s); err != nil {
		return 0, reason.Errorf("ask for the room in %s: %w", directory, err)
	}
	return s.Bfree * uint64(s.Bsize), nil
}

// TakesUpdates tells whether a release key was built in.
func (r *Receiver) TakesUpdates() bool { return len(r.key) > 0 }

// Journal returns what is known of the last update.
func (r *Receiver) Journal() (Journal, error) { return r.store.Journal() }

// Installed is the version of the package that is installed.
func (r *Receiver) Installed(ctx context.Context) (string, error) { return r.machine.Installed(ctx) }

// Architecture is dpkg's name for the machine's.
func (r *Receiver) Architecture(ctx context.Context) (string, error) {
	return r.machine.Architecture(ctx)
}

// IsImage tells whether the machine runs the image.
func (r *Receiver) IsImage() bool { return r.machine.IsImage() }

// Begin looks at a preamble, and returns the name of an upload for what follows it. Whatever can be
// refused is refused here, before anything is stored. offset is where the App goes on with an
// upload that broke off (Partial); 0: it begins.
func (r *Receiver) Begin(ctx context.Context, preamble []byte, offset uint64) (id []byte, err error) {
	if len(r.key) == 0 {
		return nil, cmp.Or(r.broken, ErrNoKey)
	}
	h, err := release.Verify(preamble, r.key)
	if err != nil {
		return nil, err
	}
	if err := r.reserve(); err != nil {
		return nil, err
	}
	u, err := r.prepare(ctx, h, preamble, offset)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.beginning = false
	if err != nil {
		return nil, err
	}
	u.expires = time.AfterFunc(r.idle, func() { r.Abort(u.id[:]) })
	r.upload = u
	return u.id[:], nil
}

// reserve takes the one place of an upload. To verify a part takes a while, in which all others are
// told that an upload is under way.
func (r *Receiver) reserve() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.takenLocked() {
		return ErrBusy
	}
	if err := r.idleLocked(); err != nil {
		return err
	}
	r.beginning = true
	return nil
}

func (r *Receiver) takenLocked() bool { return r.upload != nil || r.beginning }

func (r *Receiver) prepare(ctx context.Context, h release.Header, preamble []byte, offset uint64) (*upload, error) {
	from, err := isForThis(ctx, r.machine, h)
	if err != nil {
		return nil, err
	}
	u := &upload{header: h, signed: preamble, from: from, hash: sha256.New()}
	if _, err := io.ReadFull(rand.Reader, u.id[:]); err != nil {
		return nil, reason.Errorf("read %d random bytes: %w", len(u.id), err)
	}
	if offset > 0 {
		return u, r.goOn(ctx, u, offset)
	}
	return u, r.open(u)
}

// open makes the file of an upload that begins. A part of another one is removed.
func (r *Receiver) open(u *upload) error {
	if err := r.store.remove(incomingImageFile, incomingHeaderFile); err != nil {
		return reason.Errorf("remove an unfinished upload: %w", err)
	}
	need := roomFactor * u.header.Size
	if u.header.Image != nil {
		need = u.header.Size + imageRoom
	}
	free, err := r.free(r.store.directory)
	if err != nil {
		return err
	}
	if free < need {
		return reason.Errorf("%w: %d MiB are free, and %d are needed", ErrNoSpace, free>>20, need>>20+1)
	}
	if u.header.Image != nil {
		if err := atomicfile.WriteFileAtomic(r.store.path(incomingHeaderFile), u.signed, 0o600); err != nil {
			return asNoSpace(err)
		}
	}
	u.file, err = os.OpenFile(r.store.path(u.incoming()), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return reason.Errorf("make a file for the update: %w", asNoSpace(err))
	}
	return nil
}

// goOn opens the part that is there, and verifies it: a power cut may have torn it. A part that is
// damaged is removed. It ends early with ctx: reading a part of 2 GiB takes a slow disk a minute.
func (r *Receiver) goOn(ctx context.Context, u *upload, offset uint64) error {
	header, err := readAtMost(r.store.path(incomingHeaderFile), release.MaxPreambleSize)
	if err != nil || !bytes.Equal(header, u.signed) || u.header.Image == nil {
		return ErrNoUpload
	}
	file, err := os.OpenFile(r.store.path(incomingImageFile), os.O_RDWR, 0)
	if err != nil {
		return ErrNoUpload
	}
	good, err := u.header.Image.Whole(io.LimitReader(whileWanted{ctx, file}, int64(min(offset, u.header.Size))))
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), file.Close())
	}
	if good == offset {
		err = file.Truncate(int64(offset))
	}
	if err == nil || good == offset && errors.Is(err, release.ErrDamaged) {
		_, err = file.Seek(int64(offset), io.SeekStart)
	}
	if err != nil {
		return errors.Join(ErrNoUpload, file.Close(), r.store.remove(incomingImageFile, incomingHeaderFile))
	}
	u.file, u.size = file, offset
	return nil
}

// whileWanted reads as long as somebody waits for it.
type whileWanted struct {
	ctx  context.Context
	from io.Reader
}

func (w whileWanted) Read(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.from.Read(b)
}

// Partial tells which image has arrived in part: the SHA-256 of its preamble, and how many bytes of
// it are here. ok is false if there is none.
func (r *Receiver) Partial() (preamble [sha256.Size]byte, size uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	header, err := readAtMost(r.store.path(incomingHeaderFile), release.MaxPreambleSize)
	if err != nil || r.takenLocked() {
		return preamble, 0, false
	}
	h, err := release.Verify(header, r.key)
	info, statErr := os.Stat(r.store.path(incomingImageFile))
	if err != nil || statErr != nil || h.Image == nil {
		return preamble, 0, false
	}
	return sha256.Sum256(header), h.Image.Begun(uint64(info.Size())), true
}

// forgetOldPart removes a part for which no App has come back.
func (r *Receiver) forgetOldPart() error {
	info, err := os.Stat(r.store.path(incomingImageFile))
	if err == nil && time.Since(info.ModTime()) < partialAge {
		return nil
	}
	return r.store.remove(incomingImageFile, incomingHeaderFile)
}

// forgetUnused is forgetOldPart, unless an App is going on with the part.
func (r *Receiver) forgetUnused() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.takenLocked() {
		_ = r.forgetOldPart() // else the next start does it
	}
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
func isForThis(ctx context.Context, machine Machine, h release.Header) (from string, err error) {
	switch image := machine.IsImage(); {
	case image && h.Image == nil:
		return "", reason.Errorf("%w: it is a Debian package, and this Base runs the image; take the file that ends in .image.release", ErrNotForThis)
	case !image && h.Image != nil:
		return "", reason.Errorf("%w: it is an image, and this Base is a Debian with the package; take the file without .image in its name",
			ErrNotForThis)
	}
	architecture, err := machine.Architecture(ctx)
	if err != nil {
		return "", err
	}
	if h.Architecture != architecture {
		return "", reason.Errorf("%w: it is for %s, and this is %s", ErrNotForThis, h.Architecture, architecture)
	}
	if from, err = machine.Installed(ctx); err != nil {
		return "", err
	}
	if release.Compare(h.Version, from) <= 0 {
		return "", reason.Errorf("%w: it is version %s, and version %s is installed; only a newer one is taken", ErrNotForThis, h.Version, from)
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
		return reason.Errorf("%w: a piece has 1 to %d bytes, not %d", ErrOutOfOrder, MaxPiece, len(b))
	case uint64(len(b)) > u.header.Size-u.size:
		return reason.Errorf("%w: it is longer than the %d bytes that were signed", release.ErrDamaged, u.header.Size)
	}
	if u.header.Image != nil {
		if err := u.header.Image.CheckChunk(offset, b); err != nil {
			return err
		}
	}
	if _, err := r.write(u.file, b); err != nil {
		return reason.Errorf("store the update: %w", asNoSpace(err))
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

// Abort ends an upload, and removes the part of a package that has arrived. It ignores another
// upload, and one that has ended.
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
	if r.upload.header.Image == nil {
		_ = r.store.remove(incomingFile) // else the next start does it
	} else {
		time.AfterFunc(partialAge, r.forgetUnused)
	}
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
	return r.begin(ctx, j)
}

// begin has the update of a Journal done.
func (r *Receiver) begin(ctx context.Context, j Journal) (Journal, error) {
	if err := r.store.write(j); err != nil {
		return Journal{}, asNoSpace(err)
	}
	if err := r.machine.Start(ctx); err != nil {
		j.Phase, j.Reason, j.Ended = Undone, "the installation could not be started", time.Now().UTC()
		return Journal{}, errors.Join(err, r.store.write(j), r.store.remove(packageFile, imageFile, headerFile, upgraderFile))
	}
	return j, nil
}

// Back has the machine go back to the version in the other slot. oldest is the oldest version that
// is allowed; empty: any.
func (r *Receiver) Back(ctx context.Context, oldest string) (Journal, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.machine.IsImage() {
		return Journal{}, reason.Errorf("%w: only the image keeps the previous version", ErrNotForThis)
	}
	if r.takenLocked() {
		return Journal{}, ErrBusy
	}
	if err := r.idleLocked(); err != nil {
		return Journal{}, err
	}
	slots, err := r.store.Slots()
	if err != nil {
		return Journal{}, err
	}
	from, err := r.machine.Installed(ctx)
	if err != nil {
		return Journal{}, err
	}
	switch {
	case slots.Other == "" || slots.Running != from || release.Compare(slots.Other, from) >= 0:
		return Journal{}, reason.Errorf("%w: there is no older version in the other slot", ErrNotForThis)
	case release.Below(slots.Other, oldest):
		return Journal{}, reason.Errorf("%w: the other slot holds version %s, and none older than %s is allowed", ErrNotForThis,
			slots.Other, oldest)
	}
	id := make([]byte, uploadIDSize)
	if _, err := io.ReadFull(rand.Reader, id); err != nil {
		return Journal{}, reason.Errorf("read %d random bytes: %w", len(id), err)
	}
	return r.begin(ctx, Journal{ID: hex.EncodeToString(id), From: from, To: slots.Other, Phase: Staged, Back: true,
		Step: "an owner's App has ordered it", Began: time.Now().UTC()})
}

// Confirm notes that an owner's App has come back to a version that is on trial.
func (r *Receiver) Confirm(id string) error {
	j, err := r.store.Journal()
	if err != nil {
		return err
	}
	if j.ID != id || !j.AwaitsApp() {
		return ErrNotOnTrial
	}
	if err := atomicfile.WriteFileAtomic(r.store.path(confirmedFile), []byte(id), 0o600); err != nil {
		return asNoSpace(err)
	}
	return nil
}

// Slots tells what is in the slots.
func (r *Receiver) Slots() (Slots, error) { return r.store.Slots() }

// keep puts everything in place that the Installer needs.
func (r *Receiver) keep(ctx context.Context, u *upload) error {
	// Each chunk of an image was compared when it came.
	if u.size != u.header.Size || u.header.Image == nil && [sha256.Size]byte(u.hash.Sum(nil)) != u.header.Hash {
		return release.ErrDamaged
	}
	if err := u.file.Sync(); err != nil {
		return reason.Errorf("store the update: %w", asNoSpace(err))
	}
	if u.header.Image == nil {
		if err := describes(ctx, r.machine, r.store.path(incomingFile), u.header); err != nil {
			return err
		}
		if err := copyProgram(r.store.path(upgraderFile), r.program); err != nil {
			return asNoSpace(err)
		}
	}
	if err := atomicfile.WriteFileAtomic(r.store.path(headerFile), u.signed, 0o600); err != nil {
		return asNoSpace(err)
	}
	staged := packageFile
	if u.header.Image != nil {
		staged = imageFile
	}
	if err := os.Rename(r.store.path(u.incoming()), r.store.path(staged)); err != nil {
		return reason.Errorf("store the update: %w", err)
	}
	return r.store.remove(incomingHeaderFile)
}

// incoming is the file that an upload is stored in.
func (u *upload) incoming() string {
	if u.header.Image != nil {
		return incomingImageFile
	}
	return incomingFile
}

// describes tells whether the package is what its header says.
func describes(ctx context.Context, machine interface {
	Describe(ctx context.Context, path string) (Package, error)
}, path string, h release.Header) error {
	is, err := machine.Describe(ctx, path)
	if err != nil {
		return reason.Errorf("%w: %w", ErrNotForThis, err)
	}
	if want := (Package{PackageName, h.Version, h.Architecture}); is != want {
		return reason.Errorf("%w: it holds the package %q %q for %q, not %q %q for %q", ErrNotForThis,
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
		return reason.Errorf("keep the program that goes back: %w", err)
	}
	return nil
}

// asNoSpace gives a full disk its sentence.
func asNoSpace(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return reason.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}
