package verify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore"
	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Release is what was brought. Nothing of it is trusted.
type Release struct {
	// Name is that of the archive, such as bitcoin-31.0-x86_64-linux-gnu.tar.gz.
	Name string
	// Archive is read twice.
	Archive io.ReadSeeker
	// Sums and Signatures are the content of SHA256SUMS and SHA256SUMS.asc.
	Sums, Signatures []byte
}

// Verify tells which release it is, and who has signed it, in a Record without a folder.
func (s Signers) Verify(ctx context.Context, r Release, architecture string) (bitcoincore.Record, error) {
	archive, err := bitcoincore.ParseArchive(r.Name)
	if err == nil {
		err = archive.For(architecture)
	}
	if err != nil {
		return bitcoincore.Record{}, err
	}
	names, err := s.Signatures(ctx, r.Sums, r.Signatures)
	if err != nil {
		return bitcoincore.Record{}, err
	}
	hash := sha256.New()
	n, err := io.Copy(hash, io.LimitReader(r.Archive, bitcoincore.MaxArchive+1))
	if err == nil {
		_, err = r.Archive.Seek(0, io.SeekStart)
	}
	switch {
	case err != nil:
		return bitcoincore.Record{}, reason.Errorf("read %s: %w", r.Name, err)
	case n > bitcoincore.MaxArchive:
		return bitcoincore.Record{}, reason.Errorf("%s is larger than any release", r.Name)
	}
	sum := [sha256.Size]byte(hash.Sum(nil))
	if err := bitcoincore.Compare(r.Sums, r.Name, sum); err != nil {
		return bitcoincore.Record{}, err
	}
	return bitcoincore.Record{Version: archive.Version.String(), Archive: hex.EncodeToString(sum[:]), Signers: names}, nil
}

// beginning is the prefix of a folder that is being filled.
const beginning = ".new-"

// Install verifies a release, and puts it into a place. The folder that is in use stays as it is,
// beside the new one, until the next installation. Whatever ends this function, the place has the
// old release or the new one; the next call removes what was left behind. now is when; zero: a
// package is made, whose bytes are always the same.
func (s Signers) Install(ctx context.Context, r Release, architecture, place string, now time.Time) (bitcoincore.Record, error) {
	record, err := s.Verify(ctx, r, architecture)
	if err != nil {
		return record, err
	}
	version, err := bitcoincore.ParseVersion(record.Version)
	if err != nil {
		return record, err
	}
	inUse, err := bitcoincore.ReadRecord(place)
	if err != nil {
		inUse = bitcoincore.Record{} // there is none, or it is damaged: nothing runs from here
	}
	if err := tidy(place, inUse.Folder); err != nil {
		return record, reason.Errorf("make room for Bitcoin Core: %w", err)
	}
	// The same release once more repairs one that is damaged; it must not replace files in use.
	record.Folder, record.Installed = bitcoincore.FolderOf(version, record.Archive), now
	if record.Folder == inUse.Folder {
		record.Folder = bitcoincore.FolderOf(version, record.Archive[8:])
	}
	fresh := filepath.Join(place, beginning+record.Folder)
	steps := []struct {
		what string
		do   func() error
	}{
		{"make the folder", func() error { return os.Mkdir(fresh, 0o755) }},
		{"open the folder", func() error { return os.Chmod(fresh, 0o755) }}, // whatever the umask is
		{"unpack", func() error { return unpack(r.Archive, version, fresh) }},
		{"sync the folder", func() error { return atomicfile.SyncDir(fresh) }},
		{"name the folder", func() error { return os.Rename(fresh, filepath.Join(place, record.Folder)) }},
		{"sync the place", func() error { return atomicfile.SyncDir(place) }},
		{"switch", func() error {
			text, err := json.Marshal(record)
			if err != nil {
				return err
			}
			return atomicfile.WriteFileAtomic(bitcoincore.RecordFile(place), append(text, '\n'), 0o644)
		}},
	}
	for _, step := range steps {
		if err := failpoint.Around(step.what, step.do); err != nil {
			return record, reason.Errorf("install Bitcoin Core: %w", err)
		}
	}
	return record, nil
}

// tidy removes the folders of a place but the one in use, and what a kill has left behind.
func tidy(place, inUse string) error {
	entries, err := os.ReadDir(place)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if name := entry.Name(); name != inUse && (entry.IsDir() || strings.HasPrefix(name, ".")) {
			if err := os.RemoveAll(filepath.Join(place, name)); err != nil {
				return err
			}
		}
	}
	return nil
}
