package verify

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Bounds of what an archive holds. A release has some 20 files, the largest of which has 40 MB.
const (
	maxProgram  = 128 << 20
	maxUnpacked = 1 << 30
	maxEntries  = 1000
)

// errArchive: the archive is genuine by its hash, and not one that this Base unpacks.
var errArchive = reason.New("the archive cannot be used")

// unpack writes the programs of an archive into a folder that is empty, and has them on disk when
// it returns. A name in the archive decides about nothing but whether it is one of the programs.
func unpack(archive io.Reader, version bitcoincore.Version, folder string) error {
	zipped, err := gzip.NewReader(archive)
	if err != nil {
		return reason.Errorf("%w: it is no gzip file (%w)", errArchive, err)
	}
	bin := "bitcoin-" + version.String() + "/bin/"
	left := &io.LimitedReader{R: zipped, N: maxUnpacked}
	entries := tar.NewReader(left)
	var done []string
	for n := 0; ; n++ {
		entry, err := entries.Next()
		switch {
		case left.N <= 0 || n > maxEntries:
			return reason.Errorf("%w: it holds more than a release does", errArchive)
		case errors.Is(err, io.EOF):
			if slices.Sort(done); len(done) != len(bitcoincore.Programs) {
				return reason.Errorf("%w: it does not hold %v in the folder %s", errArchive, bitcoincore.Programs, bin)
			}
			return nil
		case err != nil:
			return reason.Errorf("%w: it is damaged (%w)", errArchive, err)
		case !fs.ValidPath(path.Clean(entry.Name)) || path.Clean(entry.Name)+"/" != entry.Name && path.Clean(entry.Name) != entry.Name:
			return reason.Errorf("%w: it holds the name %.80q, which leads elsewhere", errArchive, entry.Name)
		}
		for _, program := range bitcoincore.Programs {
			if entry.Name != bin+program {
				continue
			}
			if entry.Typeflag != tar.TypeReg || entry.Size > maxProgram || slices.Contains(done, program) {
				return reason.Errorf("%w: %s in it is no single file of at most %d MiB", errArchive, program, maxProgram>>20)
			}
			if err := write(filepath.Join(folder, program), entries); err != nil {
				return err
			}
			done = append(done, program)
		}
	}
}

// write makes a file that can be executed.
func write(path string, from io.Reader) error {
	const mode = 0o755
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return reason.Errorf("unpack Bitcoin Core: %w", err)
	}
	_, err = io.Copy(file, from) // the archive's reader ends after the size that its header says
	if err = errors.Join(err, file.Chmod(mode), file.Sync(), file.Close()); err != nil {
		return reason.Errorf("unpack Bitcoin Core: %w", err)
	}
	return nil
}
