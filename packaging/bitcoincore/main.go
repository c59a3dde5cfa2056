// Command bitcoincore puts Bitcoin Core into a package or an image that is being made, once it has
// verified the release (docs/node.md). It is for builders; a Base has the same verifier.
//
//	go run ./packaging/bitcoincore SIGNERS ARCHITECTURE PLACE ARCHIVE...
//
// SIGNERS is the folder with the builder's list, ARCHITECTURE is as Debian names it, and PLACE is
// the folder to make. Of the archives it takes the one for the architecture; SHA256SUMS and
// SHA256SUMS.asc lie beside it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore"
	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore/verify"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bitcoincore:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 4 {
		return errors.New("usage: bitcoincore SIGNERS ARCHITECTURE PLACE ARCHIVE [ARCHIVE]")
	}
	architecture, place := args[1], args[2]
	path, err := choose(architecture, args[3:])
	if err != nil {
		return err
	}
	signers, err := verify.ReadSigners(args[0])
	if err != nil {
		return err
	}
	archive, err := os.Open(path)
	if err != nil {
		return err
	}
	defer archive.Close()
	r := verify.Release{Name: filepath.Base(path), Archive: archive}
	if r.Sums, err = beside(path, bitcoincore.SumsFile, bitcoincore.MaxSums); err != nil {
		return err
	}
	if r.Signatures, err = beside(path, bitcoincore.SignaturesFile, bitcoincore.MaxSignatures); err != nil {
		return err
	}
	if err := os.MkdirAll(place, 0o755); err != nil {
		return err
	}
	record, err := signers.Install(context.Background(), r, architecture, place, time.Time{})
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "bitcoincore: Bitcoin Core %s for %s, signed by %s\n", record.Version, architecture,
		strings.Join(record.Signers, ", "))
	return nil
}

// choose returns the one archive for an architecture.
func choose(architecture string, paths []string) (string, error) {
	chosen := ""
	for _, path := range paths {
		archive, err := bitcoincore.ParseArchive(filepath.Base(path))
		switch {
		case err != nil:
			return "", err
		case archive.For(architecture) != nil:
		case chosen != "":
			return "", fmt.Errorf("%s and %s are both for %s; name one", chosen, path, architecture)
		default:
			chosen = path
		}
	}
	if chosen == "" {
		return "", fmt.Errorf("no archive of Bitcoin Core for %s was named", architecture)
	}
	return chosen, nil
}

// beside reads a file in the folder of the archive. Its size is checked where it is verified.
func beside(archive, name string, most int64) ([]byte, error) {
	file, err := os.Open(filepath.Join(filepath.Dir(archive), name))
	if err != nil {
		return nil, fmt.Errorf("%w; fetch it from where the archive is from, and put it beside it", err)
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, most+1))
}
