package client

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
)

// BitcoinCore is a release of Bitcoin Core on this computer: an archive, and the files SHA256SUMS and
// SHA256SUMS.asc in the same folder. Its signatures are not verified here: the Base has the list of
// those that count.
type BitcoinCore struct {
	// Name is that of the archive. Architecture is as Debian names it.
	Name, Version, Architecture string
	// Size is that of the archive, in bytes.
	Size uint64

	hash             [sha256.Size]byte
	sums, signatures []byte
	file             *os.File
}

// The names of the two files beside the archive, and how long the archive and each of them may be, in bytes.
const (
	BitcoinCoreSums       = bitcoincore.SumsFile
	BitcoinCoreSignatures = bitcoincore.SignaturesFile
	MaxBitcoinCore        = bitcoincore.MaxArchive
	MaxBitcoinCoreSums    = bitcoincore.MaxSignatures
)

// BitcoinCoreName returns the name of an archive, and an error if no release for Linux that Bases take has
// that name. It is no path.
func BitcoinCoreName(name string) (string, error) {
	archive, err := bitcoincore.ParseArchive(name)
	if err != nil {
		return "", fail(ErrRelease, err, "%v", err)
	}
	return archive.Name, nil
}

// OpenBitcoinCore checks that an archive is whole, and one that Bases take. Close must follow.
func OpenBitcoinCore(path string) (_ *BitcoinCore, err error) {
	archive, err := bitcoincore.ParseArchive(filepath.Base(path))
	if err != nil {
		return nil, fail(ErrRelease, err, "%v", err)
	}
	r := &BitcoinCore{Name: archive.Name, Version: archive.Version.String(), Architecture: archive.Architecture}
	for name, into := range map[string]*[]byte{bitcoincore.SumsFile: &r.sums, bitcoincore.SignaturesFile: &r.signatures} {
		beside := filepath.Join(filepath.Dir(path), name)
		if *into, err = readSmall(beside, bitcoincore.MaxSignatures); err != nil {
			return nil, fail(ErrInvalid, err, "%s cannot be read (%v); fetch it from where the archive is from, and put it beside it",
				Printable(beside), reason(err))
		}
	}
	if r.file, err = os.Open(path); err != nil {
		return nil, fail(ErrInvalid, err, "%q cannot be read (%v)", Printable(path), reason(err))
	}
	defer func() {
		if err != nil {
			_ = r.file.Close()
		}
	}()
	hash := sha256.New()
	n, err := io.Copy(hash, io.LimitReader(r.file, bitcoincore.MaxArchive+1))
	if err != nil {
		return nil, fail(ErrInvalid, err, "%q cannot be read (%v)", Printable(path), reason(err))
	}
	r.Size, r.hash = uint64(n), [sha256.Size]byte(hash.Sum(nil))
	if err := bitcoincore.Compare(r.sums, r.Name, r.hash); err != nil {
		return nil, fail(ErrRelease, err, "%v", err)
	}
	return r, nil
}

func readSmall(path string, most int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	b, err := io.ReadAll(io.LimitReader(file, most+1))
	if err == nil && int64(len(b)) > most {
		err = errors.New("it is too large")
	}
	return b, err
}

// Close closes the file.
func (r *BitcoinCore) Close() error { return r.file.Close() }

// InstallBitcoinCore signs an order to install a release, and sends the release to the Base, which
// verifies and installs it, and restarts its node. It returns the names of those whose signatures
// have counted. progress, which may be nil, is told how many bytes were sent.
func (s *Session) InstallBitcoinCore(caller context.Context, r *BitcoinCore, progress func(sent uint64)) (signers []string, err error) {
	if _, err := r.file.Seek(0, io.SeekStart); err != nil {
		return nil, fail(ErrInvalid, err, "the archive cannot be read (%v)", reason(err))
	}
	seen, err := s.look(caller, true)
	if err != nil {
		return nil, err
	}
	order := posture.SignNodeOrder(seen.view.InstallOrder(r.Name, r.hash, seen.challenge), seen.seed)
	// An upload that is not completed is cut off, whatever the reason.
	ctx, cancel := context.WithCancel(caller)
	defer cancel()
	stream, err := s.Node.BringBitcoinCore(ctx)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	err = stream.Send(&basev1.BringBitcoinCoreRequest{Part: &basev1.BringBitcoinCoreRequest_Release{Release: &basev1.BitcoinCoreRelease{
		Order: order, Sums: r.sums, Signatures: r.signatures, Size: r.Size}}})
	for sent, piece := uint64(0), make([]byte, pieceSize); err == nil && sent < r.Size; {
		if progress != nil {
			progress(sent)
		}
		n := min(pieceSize, r.Size-sent)
		if _, err := io.ReadFull(r.file, piece[:n]); err != nil {
			return nil, fail(ErrRelease, err, "the archive changed while it was being read; try again")
		}
		err = stream.Send(&basev1.BringBitcoinCoreRequest{Part: &basev1.BringBitcoinCoreRequest_Piece{Piece: piece[:n]}})
		sent += n
	}
	// io.EOF: the Base answered before it had the whole file. The answer says why.
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	answer, err := stream.Finish()
	if err != nil {
		return nil, asRefused(err)
	}
	return answer.GetSigners(), nil
}

// asRefused tells a Base that refuses the release from one that cannot take it now.
func asRefused(err error) error {
	var call *rpc.Error
	if errors.As(err, &call) && call.Remote && (call.Code == rpc.Precondition || call.Code == rpc.Invalid) {
		return fail(ErrRelease, err, "the Base did not install it: %s", Printable(call.Text))
	}
	return err
}

// RebuildChain signs an order for the node to make its chain again: from the blocks on its disk, or,
// with resync, from the network. The node restarts then, and is behind for hours or days.
func (s *Session) RebuildChain(ctx context.Context, resync bool) error {
	seen, err := s.look(ctx, true)
	if err != nil {
		return err
	}
	way := systemv1.RebuildChain_WAY_REINDEX
	if resync {
		way = systemv1.RebuildChain_WAY_RESYNC
	}
	_, err = s.Node.RebuildChain(ctx, &basev1.RebuildChainRequest{
		Order: posture.SignNodeOrder(seen.view.RebuildOrder(way, seen.challenge), seen.seed)})
	return err
}
