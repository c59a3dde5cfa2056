// Package nodeorders does what owners order about the Bitcoin node: it installs a release of Bitcoin
// Core, and has the node make its chain again.
//
// Two processes share the installation. The system helper takes the order and the upload ([Orders]).
// A unit of its own, without network and without a socket, verifies and unpacks what has arrived
// ([Install]); so the helper parses nothing of it.
package nodeorders

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/turns"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/units"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Places on the appliance. Both are root's.
const (
	// Incoming has an upload, for root alone.
	Incoming = "/var/lib/bitbox-node/incoming"
	// Runtime has the order to make the chain again. It does not outlive the machine's restart.
	Runtime = "/run/bitbox-base-node"
)

// Unit verifies and unpacks an upload. It is static; starting it takes no argument.
const Unit = "bitbox-base-bitcoin-core.service"

// RebuildFile is the order to make the chain again, in Runtime.
const RebuildFile = "rebuild.json"

// Rebuild is its content.
type Rebuild struct {
	// ID is random: an order is carried out once.
	ID string `json:"id"`
	// Resync deletes the blocks, which come from the network again; else they are read once more.
	Resync bool `json:"resync"`
}

const (
	// MaxPiece is the longest piece of an upload in bytes, so that it fits in a message.
	MaxPiece = 512 << 10
	// idle is how long the next piece is waited for.
	idle = 30 * time.Second
	// roomFactor is how much room has to be free, in sizes of the archive: for itself and for what
	// is unpacked of it. spare is left beside that, in bytes.
	roomFactor = 4
	spare      = 64 << 20
	// maxResult is far above what a result has, in bytes.
	maxResult = 16 << 10
	idSize    = 16
)

// Errors of an upload.
var (
	errBusy       = helperclient.Errorf(helperclient.CodeBusy, "another release of Bitcoin Core is being installed; wait until that has ended")
	errNoUpload   = helperclient.Errorf(helperclient.CodeNothing, "there is no such upload, or no longer; begin again")
	errOutOfOrder = helperclient.Errorf(helperclient.CodeMalformed, "the pieces of the archive came in another order; begin again")
	errDamaged    = helperclient.Errorf(helperclient.CodeRefused, "the archive is not the one that the owner has signed for; begin again")
	errNoOrder    = helperclient.Errorf(helperclient.CodeMalformed, "the order is about something else")
)

// Ledger takes what owners have signed.
type Ledger interface {
	Update(call func(l *posture.Ledger, now time.Duration) (posture.Output, error)) error
}

// Config is what Orders are made of.
type Config struct {
	// Incoming and Runtime are places; empty: those of the appliance.
	Incoming, Runtime string
	Ledger            Ledger
	Systemd           units.Manager
	// Architecture is Debian's name for the machine's.
	Architecture string
	Later        turns.Later
	Log          *slog.Logger
	// Free tells what is left for root in a folder, in bytes; nil: it is asked for.
	Free func(folder string) (uint64, error)
}

// Orders takes orders, and one upload at a time.
type Orders struct {
	config Config

	mu     sync.Mutex
	upload *upload // nil: none
}

type upload struct {
	id      [idSize]byte
	signed  []byte // the order
	install *systemv1.InstallBitcoinCore
	file    *os.File
	hash    hash.Hash
	size    uint64
	want    uint64
	expires *time.Timer
}

// New returns Orders.
func New(c Config) *Orders {
	if c.Incoming == "" {
		c.Incoming = Incoming
	}
	if c.Runtime == "" {
		c.Runtime = Runtime
	}
	if c.Free == nil {
		c.Free = free
	}
	return &Orders{config: c}
}

func free(folder string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(folder, &s); err != nil {
		return 0, reason.Errorf("ask for the room in %s: %w", folder, err)
	}
	return s.Bfree * uint64(s.Bsize), nil
}

// take takes a signed order.
func (o *Orders) take(signed []byte) (order *systemv1.NodeOrder, err error) {
	err = o.config.Ledger.Update(func(l *posture.Ledger, now time.Duration) (out posture.Output, err error) {
		order, out, err = l.NodeOrder(signed, now)
		return out, err
	})
	return order, err
}

// Begin takes an owner's order to install a release, and begins its upload. What can be refused is
// refused here, before anything is stored.
func (o *Orders) Begin(_ context.Context, _ *caller.Call, request *systemv1.BeginBitcoinCore) (*systemv1.SystemReply, error) {
	if len(request.GetSums()) > bitcoincore.MaxSums || len(request.GetSignatures()) > bitcoincore.MaxSignatures ||
		request.GetSize() == 0 || request.GetSize() > bitcoincore.MaxArchive {
		return nil, helperclient.Errorf(helperclient.CodeInvalid, "a file of the release is larger than those of any release, or empty")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.upload != nil {
		return nil, errBusy
	}
	order, err := o.take(request.GetOrder())
	if err != nil {
		return nil, err
	}
	install := order.GetInstall()
	if install == nil || len(install.GetSha256()) != sha256.Size {
		return nil, errNoOrder
	}
	archive, err := bitcoincore.ParseArchive(install.GetArchive())
	if err == nil {
		err = archive.For(o.config.Architecture)
	}
	if err == nil {
		err = bitcoincore.Compare(request.GetSums(), archive.Name, [sha256.Size]byte(install.GetSha256()))
	}
	if err != nil {
		return nil, helperclient.Errorf(helperclient.CodeRefused, "%w", err)
	}
	u := &upload{signed: request.GetOrder(), install: install, hash: sha256.New(), want: request.GetSize()}
	if _, err := io.ReadFull(rand.Reader, u.id[:]); err != nil {
		return nil, reason.Errorf("read %d random bytes: %w", idSize, err)
	}
	if err := o.open(u, request); err != nil {
		return nil, err
	}
	u.expires = time.AfterFunc(idle, func() { o.end(u.id[:]) })
	o.upload = u
	o.config.Log.Info("a release of Bitcoin Core is being received", "audit", true, "archive", archive.Name)
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_UpdateBegan{UpdateBegan: &systemv1.UpdateBegan{Upload: u.id[:]}}}, nil
}

// open makes the files of an upload.
func (o *Orders) open(u *upload, request *systemv1.BeginBitcoinCore) error {
	if err := o.clear(); err != nil {
		return err
	}
	room, err := o.config.Free(o.config.Incoming)
	if err != nil {
		return err
	}
	if need := roomFactor*u.want + spare; room < need {
		return helperclient.Errorf(helperclient.CodeStorage,
			"there is not enough room on the Base for Bitcoin Core: %d MiB are free, and %d are needed", room>>20, need>>20+1)
	}
	job, err := json.Marshal(job{Name: u.install.GetArchive()})
	if err == nil {
		err = errors.Join(
			atomicfile.WriteFileAtomic(o.in(jobFile), job, 0o600),
			atomicfile.WriteFileAtomic(o.in(bitcoincore.SumsFile), request.GetSums(), 0o600),
			atomicfile.WriteFileAtomic(o.in(bitcoincore.SignaturesFile), request.GetSignatures(), 0o600))
	}
	if err == nil {
		u.file, err = os.OpenFile(o.in(archiveFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	}
	if err != nil {
		return storage(errors.Join(err, o.clear()))
	}
	return nil
}

func storage(err error) error {
	return helperclient.Errorf(helperclient.CodeStorage, "store the release of Bitcoin Core: %w", err)
}

func (o *Orders) in(name string) string { return filepath.Join(o.config.Incoming, name) }

// clear removes an upload, whatever is left of it.
func (o *Orders) clear() error {
	entries, err := os.ReadDir(o.config.Incoming)
	for _, entry := range entries {
		err = errors.Join(err, os.Remove(o.in(entry.Name())))
	}
	if err != nil {
		return storage(err)
	}
	return nil
}

// Piece appends to an upload.
func (o *Orders) Piece(_ context.Context, _ *caller.Call, request *systemv1.BitcoinCorePiece) (*systemv1.SystemReply, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	u, err := o.theLocked(request.GetUpload())
	if err != nil {
		return nil, err
	}
	b := request.GetData()
	switch {
	case request.GetOffset() != u.size || len(b) == 0 || len(b) > MaxPiece:
		err = errOutOfOrder
	case uint64(len(b)) > u.want-u.size:
		err = errDamaged
	default:
		if _, err = u.file.Write(b); err != nil {
			err = storage(err)
		}
	}
	if err != nil {
		o.dropLocked()
		return nil, err
	}
	u.hash.Write(b)
	u.size += uint64(len(b))
	u.expires.Reset(idle)
	return &systemv1.SystemReply{}, nil
}

func (o *Orders) theLocked(id []byte) (*upload, error) {
	if o.upload == nil || subtle.ConstantTimeCompare(id, o.upload.id[:]) != 1 {
		return nil, errNoUpload
	}
	return o.upload, nil
}

// Abort ends an upload. It ignores another one, and one that has ended.
func (o *Orders) Abort(_ context.Context, _ *caller.Call, request *systemv1.AbortBitcoinCore) (*systemv1.SystemReply, error) {
	o.end(request.GetUpload())
	return &systemv1.SystemReply{}, nil
}

func (o *Orders) end(id []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, err := o.theLocked(id); err == nil {
		o.dropLocked()
	}
}

func (o *Orders) dropLocked() {
	o.upload.expires.Stop()
	_ = o.upload.file.Close()
	_ = o.clear() // else the next upload does it
	o.upload = nil
}

// Finish has what has arrived verified and installed, and the node restarted.
func (o *Orders) Finish(ctx context.Context, _ *caller.Call, request *systemv1.FinishBitcoinCore) (*systemv1.SystemReply, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	u, err := o.theLocked(request.GetUpload())
	if err != nil {
		return nil, err
	}
	defer o.dropLocked()
	u.expires.Stop()
	switch {
	case string(request.GetOrder()) != string(u.signed):
		return nil, errNoOrder // the log of changes has it as evidence
	case u.size != u.want || string(u.hash.Sum(nil)) != string(u.install.GetSha256()):
		return nil, errDamaged
	}
	if err := u.file.Sync(); err != nil {
		return nil, storage(err)
	}
	_, err = o.config.Systemd.Systemctl(ctx, "start", Unit)
	r, readErr := readResult(o.in(resultFile))
	switch {
	case readErr == nil && r.Refused != "":
		return nil, helperclient.Errorf(helperclient.CodeRefused, "%s", r.Refused)
	case err != nil || readErr != nil:
		return nil, helperclient.Errorf(helperclient.CodeInternal, "Bitcoin Core could not be installed, and the node is as before: %w",
			errors.Join(err, readErr))
	}
	o.config.Log.Warn("Bitcoin Core was installed", "audit", true, "version", r.Version, "signers", r.Signers)
	if err := o.restart(generation.ChainUnit, generation.WatcherUnit); err != nil {
		o.config.Log.Error("the node runs its new program only once it is restarted", "error", err)
	}
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_BitcoinCoreInstalled{BitcoinCoreInstalled: &systemv1.BitcoinCoreInstalled{
		Version: r.Version, Signers: r.Signers}}}, nil
}

// restart restarts units after the answer, and does not wait: a node may take 10 minutes to stop.
// Nothing happens to a node that is switched off, or that has no settings.
func (o *Orders) restart(names ...string) error {
	return o.config.Later.Do(func(ctx context.Context) {
		for _, unit := range names {
			if _, err := o.config.Systemd.Systemctl(ctx, "--no-block", "restart", unit); err != nil {
				o.config.Log.Error("a unit of the node could not be restarted", "unit", unit, "error", err)
			}
		}
	})
}

// Rebuild takes an owner's order to make the chain again. The node's own user carries it out, when
// the node starts next.
func (o *Orders) Rebuild(_ context.Context, _ *caller.Call, request *systemv1.OrderRebuild) (*systemv1.SystemReply, error) {
	order, err := o.take(request.GetOrder())
	if err != nil {
		return nil, err
	}
	way := order.GetRebuild().GetWay()
	if way != systemv1.RebuildChain_WAY_REINDEX && way != systemv1.RebuildChain_WAY_RESYNC {
		return nil, errNoOrder
	}
	id := make([]byte, idSize)
	if _, err := io.ReadFull(rand.Reader, id); err != nil {
		return nil, reason.Errorf("read %d random bytes: %w", idSize, err)
	}
	text, err := json.Marshal(Rebuild{ID: hex.EncodeToString(id), Resync: way == systemv1.RebuildChain_WAY_RESYNC})
	if err == nil {
		err = atomicfile.WriteFileAtomic(filepath.Join(o.config.Runtime, RebuildFile), append(text, '\n'), 0o644)
	}
	if err != nil {
		return nil, helperclient.Errorf(helperclient.CodeStorage, "order the node to make its chain again: %w; nothing has changed", err)
	}
	o.config.Log.Warn("the node makes its chain again", "audit", true, "way", way)
	return &systemv1.SystemReply{}, o.restart(generation.ChainUnit)
}

// readResult reads what Install has written.
func readResult(path string) (r result, err error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, reason.New("nobody said how it went")
	}
	if err != nil {
		return r, err
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxResult))
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	return r, err
}
