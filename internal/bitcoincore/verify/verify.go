// Package verify decides whether a release of Bitcoin Core is genuine, and installs it. The
// builder of a package or an image and the Base of an owner use the same code.
//
// # What makes a release genuine
//
// The project publishes an archive, the file SHA256SUMS with the hashes of all archives, and the
// file SHA256SUMS.asc with signatures of that, by people who have each built the same bytes. The
// builder of a Base has a list of such people ([Signers]). A release needs good signatures of
// [Least] of them. Debian's gpgv checks the signatures; its exit status says nothing about who
// has signed, so what decides is its status output ([readStatus]).
//
// Nothing of an archive is parsed before its hash is the one that was signed.
package verify

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore"
	"github.com/BitBoxSwiss/bitbox-base/internal/bounded"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Least is how many distinct signers a release needs.
const Least = 3

const (
	// gpgv is Debian's.
	gpgv = "/usr/bin/gpgv"
	// checkTime bounds how long it may take; some 20 signatures take a tenth of a second.
	checkTime = time.Minute
	// maxStatus bounds its output, in bytes. A signature makes half a KB.
	maxStatus = 256 << 10
)

// Signatures returns the names of the signers whose good signatures of sums are among the
// signatures. There are at least Least, or an error.
func (s Signers) Signatures(ctx context.Context, sums, signatures []byte) ([]string, error) {
	switch {
	case len(sums) > bitcoincore.MaxSums || len(signatures) > bitcoincore.MaxSignatures:
		return nil, reason.Errorf("SHA256SUMS or SHA256SUMS.asc is larger than those of any release; fetch them again")
	case len(s.list) < Least:
		return nil, reason.Errorf("the builder of this Base has listed %d signers of Bitcoin Core, and a release needs %d", len(s.list), Least)
	}
	status, err := s.check(ctx, sums, signatures)
	if err != nil {
		return nil, err
	}
	good := readStatus(status)
	var names []string
	for _, signer := range s.list {
		if slices.Contains(good, signer.Fingerprint) {
			names = append(names, signer.Name)
		}
	}
	if len(names) < Least {
		return nil, reason.Errorf("%w: %d of the builder's signers have signed it with a key that is still good, and %d are needed (counted: %s)",
			ErrSignatures, len(names), Least, listed(names))
	}
	return names, nil
}

// ErrSignatures: too few of those that the builder trusts have signed.
var ErrSignatures = reason.New("the release is not signed by enough people")

func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// check runs gpgv on copies in a folder of their own. gpgv parses what a stranger may have made: on a
// Base the unit around this process leaves it nothing else to reach.
func (s Signers) check(ctx context.Context, sums, signatures []byte) (status []byte, err error) {
	folder, err := os.MkdirTemp("", "bitcoin-core-")
	if err != nil {
		return nil, reason.Errorf("check the signatures: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	const mode = 0o600
	in := func(name string) string { return filepath.Join(folder, name) }
	err = errors.Join(os.WriteFile(in("keys"), s.keyring, mode), os.WriteFile(in("sums"), sums, mode),
		os.WriteFile(in("signatures"), signatures, mode))
	if err != nil {
		return nil, reason.Errorf("check the signatures: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	command := exec.CommandContext(ctx, gpgv, "--homedir", folder, "--keyring", in("keys"), "--status-fd", "1", "--",
		in("signatures"), in("sums"))
	command.Env, command.Dir = []string{"LC_ALL=C", "TZ=UTC"}, "/"
	command.WaitDelay = time.Second
	out := &bounded.Buffer{Most: maxStatus}
	command.Stdout = out
	err = command.Run()
	var ended *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil, reason.Errorf("check the signatures: %w", ctx.Err())
	case errors.As(err, &ended) && ended.Exited(): // whatever its status: the output decides
	case err != nil:
		return nil, reason.Errorf("check the signatures with Debian's gpgv: %w", err)
	}
	if out.Full() {
		return nil, reason.Errorf("%w: SHA256SUMS.asc has more signatures than any release", ErrSignatures)
	}
	return out.Bytes(), nil
}

// signature is one in the status output: the keywords that judge it, and what VALIDSIG says.
type signature struct {
	verdicts []string
	primary  string
	valid    int
}

// verdicts are the keywords of which each signature has one (doc/DETAILS of GnuPG). VALIDSIG is
// none of them: it says that the signature fits, even if its key has expired or was revoked.
var verdicts = []string{"GOODSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "BADSIG", "ERRSIG"}

// hashes are those of OpenPGP that are strong enough: SHA-256, SHA-384, SHA-512.
var hashes = []string{"8", "9", "10"}

// readStatus returns the fingerprints of the primary keys whose signatures are good. A signature
// is good if GOODSIG is all that is said about it, and one VALIDSIG names the key. A key that has
// expired or was revoked brings another verdict.
func readStatus(status []byte) (good []string) {
	var all []*signature
	scanner := bufio.NewScanner(bytes.NewReader(status))
	scanner.Buffer(nil, maxStatus)
	for scanner.Scan() {
		line, is := strings.CutPrefix(scanner.Text(), "[GNUPG:] ")
		fields := strings.Fields(line)
		if !is || len(fields) == 0 {
			continue
		}
		if fields[0] == "NEWSIG" {
			all = append(all, &signature{})
		}
		if len(all) == 0 {
			continue
		}
		s := all[len(all)-1]
		switch {
		case slices.Contains(verdicts, fields[0]):
			s.verdicts = append(s.verdicts, fields[0])
		case fields[0] == "VALIDSIG":
			s.valid++
			// VALIDSIG key date time expires version reserved algorithm hash class primary
			if len(fields) == 11 && slices.Contains(hashes, fields[8]) && fields[9] == "00" {
				s.primary = fields[10]
			}
		}
	}
	if scanner.Err() != nil {
		return nil
	}
	for _, s := range all {
		if slices.Equal(s.verdicts, []string{"GOODSIG"}) && s.valid == 1 && s.primary != "" {
			good = append(good, s.primary)
		}
	}
	return good
}
