package nodeorders

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore"
	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore/verify"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Names of the files of an upload, beside those of a release.
const (
	archiveFile = "archive"
	jobFile     = "job.json"
	resultFile  = "result.json"
)

// maxJob is far above what a job has, in bytes.
const maxJob = 4 << 10

// job says what was uploaded; the helper writes it.
type job struct {
	// Name is the archive's.
	Name string `json:"name"`
}

// result says how it went; Install writes it.
type result struct {
	// Refused is why not, for people; empty: it is installed.
	Refused string   `json:"refused,omitempty"`
	Version string   `json:"version,omitempty"`
	Signers []string `json:"signers,omitempty"`
}

// Install verifies what was uploaded, and installs it. A fault of the upload is no
// error: the result says it.
func Install(ctx context.Context, incoming, signers, architecture, place string) error {
	r, err := install(ctx, incoming, signers, architecture, place)
	if err != nil {
		fmt.Fprintln(os.Stderr, err) // for the journal
		r = result{Refused: reason.Of(err)}
	}
	text, err := json.Marshal(r)
	if err == nil {
		err = atomicfile.WriteFileAtomic(filepath.Join(incoming, resultFile), text, 0o600)
	}
	if err != nil {
		return reason.Errorf("say how the installation of Bitcoin Core went: %w", err)
	}
	return nil
}

func install(ctx context.Context, incoming, signers, architecture, place string) (result, error) {
	list, err := verify.ReadSigners(signers)
	if err != nil {
		return result{}, err
	}
	var j job
	text, err := read(filepath.Join(incoming, jobFile), maxJob)
	if err == nil {
		err = json.Unmarshal(text, &j)
	}
	if err != nil {
		return result{}, reason.Errorf("read what was uploaded: %w", err)
	}
	r := verify.Release{Name: j.Name}
	if r.Sums, err = read(filepath.Join(incoming, bitcoincore.SumsFile), bitcoincore.MaxSums+1); err != nil {
		return result{}, err
	}
	if r.Signatures, err = read(filepath.Join(incoming, bitcoincore.SignaturesFile), bitcoincore.MaxSignatures+1); err != nil {
		return result{}, err
	}
	archive, err := os.Open(filepath.Join(incoming, archiveFile))
	if err != nil {
		return result{}, reason.Errorf("open the archive: %w", err)
	}
	defer func() { _ = archive.Close() }()
	r.Archive = archive
	record, err := list.Install(ctx, r, architecture, place, time.Now().UTC())
	return result{Version: record.Version, Signers: record.Signers}, err
}

// read reads the beginning of a file.
func read(path string, most int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return io.ReadAll(io.LimitReader(file, most))
}
