package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/proxy"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// owned is how a path should be.
type owned struct {
	path        string
	user, group string
	// mode as in chmod, with the kind of file.
	mode fs.FileMode
	// optional: it may be absent.
	optional bool
}

// ownedFiles are the files that secrets and permissions depend on. The files of a generation are
// checked in generation.go.
var ownedFiles = func() []owned {
	files := []owned{
		{"/usr/bin/bitbox-base", "root", "root", 0o755, false},
		{"/etc/passwd", "root", "root", 0o644, false},
		{"/etc/group", "root", "root", 0o644, false},
		{"/etc/shadow", "root", "shadow", 0o640, false},
		{"/var/lib/bitbox-base", "root", "root", fs.ModeDir | 0o755, false},
		{generation.StateDirectory, "root", "root", fs.ModeDir | 0o755, false},
		{"/var/lib/bitbox-base/ssh", "root", "root", fs.ModeDir | 0o700, false},
		{generation.HostKey, "root", "root", 0o600, true},
		{generation.CertificateDirectory, "root", "www-data", fs.ModeDir | fs.ModeSetgid | 0o750, false},
		{"/var/lib/bitbox-base/middleware", "bitbox-base", "bitbox-base", fs.ModeDir | 0o700, true},
		{"/home/base", "base", "base", fs.ModeDir | 0o700, true},
		{generation.RuntimeDirectory, "root", "root", fs.ModeDir | 0o755, false},
		{generation.MiddlewareSocket, "root", "www-data", fs.ModeSocket | 0o660, false},
		{generation.SystemSocket, "root", "bitbox-base-system", fs.ModeSocket | 0o660, false},
	}
	for _, extra := range posture.Extras {
		files = append(files, owned{proxy.CertificateFile(generation.CertificateDirectory, string(extra.Kind)), "root", "www-data", 0o640, true})
	}
	return files
}()

func checkFiles(_ context.Context, system System, _ Expectation) ([]difference, error) {
	accounts, err := readAccounts(system)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, want := range ownedFiles {
		fault, err := want.fault(system, accounts)
		if err != nil {
			return nil, err
		}
		if fault != "" {
			found = append(found, want.path+" "+fault)
		}
	}
	if found == nil {
		return nil, nil
	}
	return []difference{{id: idFileModes, found: found}}, nil
}

// fault tells what is wrong; empty if nothing is.
func (o owned) fault(system System, a accounts) (string, error) {
	file, err := system.Lstat(o.path)
	if errors.Is(err, fs.ErrNotExist) {
		if o.optional {
			return "", nil
		}
		return "is missing", nil
	}
	if err != nil {
		return "", err
	}
	if file.Mode.Type() != o.mode.Type() {
		return fmt.Sprintf("is %s, not %s", file.Mode, o.mode), nil
	}
	uid, err := a.uid(o.user)
	if err != nil {
		return "", err
	}
	gid, err := a.gid(o.group)
	if err != nil {
		return "", err
	}
	if file.UID == uid && file.GID == gid && file.Mode == o.mode {
		return "", nil
	}
	return fmt.Sprintf("is %s %s:%s, not %s %s:%s", file.Mode, a.userName(file.UID), a.groupName(file.GID), o.mode, o.user, o.group), nil
}

// repairFiles restores owners and modes. It cannot make a file that is missing, or that is of
// another kind.
func repairFiles(ctx context.Context, system System) error {
	accounts, err := readAccounts(system)
	if err != nil {
		return err
	}
	for _, want := range ownedFiles {
		fault, err := want.fault(system, accounts)
		if err != nil {
			return err
		}
		if fault == "" {
			continue
		}
		file, err := system.Lstat(want.path)
		if err != nil {
			return err
		}
		if file.Mode.Type() != want.mode.Type() {
			return reason.Errorf("restore %s: it %s; put it back by hand", want.path, fault)
		}
		// The owner comes first: changing it clears set-ID bits.
		if _, err := ask(ctx, system, chown, "-h", "--", want.user+":"+want.group, want.path); err != nil {
			return err
		}
		if _, err := ask(ctx, system, chmod, "--", octal(want.mode), want.path); err != nil {
			return err
		}
	}
	return nil
}

// octal writes a mode for chmod. Five digits, or chmod would leave the set-ID
// bits of a directory as they are.
func octal(mode fs.FileMode) string {
	bits := uint64(mode.Perm())
	if mode&fs.ModeSetuid != 0 {
		bits |= 0o4000
	}
	if mode&fs.ModeSetgid != 0 {
		bits |= 0o2000
	}
	if mode&fs.ModeSticky != 0 {
		bits |= 0o1000
	}
	text := strconv.FormatUint(bits, 8)
	for len(text) < 5 {
		text = "0" + text
	}
	return text
}
