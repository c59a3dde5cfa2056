//go:build linux

package boot_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore"
	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore/verify"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/coretest"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// An owner types the command: a Base with the package's units takes a good release, and refuses each
// other file by one sentence, with nothing changed. The program in the releases is test/boot/played.
func TestTheCommandInstallsAReleaseOrSaysInOneSentenceWhyNot(t *testing.T) {
	t.Parallel()
	stage.NeedRoot(t)
	if runtime.GOARCH != "amd64" {
		t.Skip("SKIPPED, not passed: the releases are made for amd64")
	}
	k, archive := coretest.New(t), playedArchive(t)
	signed := func(name string, archive []byte) func(...string) string {
		return func(signers ...string) string { return k.WriteArchive(name, archive, signers...) }
	}
	three := []string{"ann", "bob", "cyd"}
	name := coretest.Name("31.0")
	good := signed(name, archive("31.0"))
	bad := map[string]struct{ path, says string }{
		"too few signatures":  {good("ann", "bob"), "2 of the builder's signers"},
		"an unknown key":      {good("ann", "bob", "stranger"), "2 of the builder's signers"},
		"an expired key":      {good("ann", "bob", "expired"), "2 of the builder's signers"},
		"a revoked key":       {good("ann", "bob", "revoked"), "2 of the builder's signers"},
		"no signature":        {good(), "0 of the builder's signers"},
		"one person, 3 times": {good("ann", "ann", "ann"), "1 of the builder's signers"},
		"another architecture": {signed("bitcoin-31.0-aarch64-linux-gnu.tar.gz", archive("31.0"))(three...),
			"for aarch64-linux-gnu, and this Base needs the one for x86_64"},
		"too old":      {signed(coretest.Name("28.4"), archive("28.4"))(three...), "takes Bitcoin Core 29 to 31, and this is 28.4"},
		"another file": {spoiled(t, good(three...)), "is damaged or not genuine"},
		"another program": {signed(name, coretest.Archive(t, coretest.Regular("bitcoin-31.0/bin/sh", "sh")))(three...),
			"does not hold [bitcoind bitcoin-cli]"},
		"no archive": {signed(name, []byte("an archive"))(three...), "is no gzip file"},
		"another name": {signed("bitcoin.tar.gz", archive("31.0"))(three...),
			"is not the name of a release of Bitcoin Core for Linux"},
		"no file": {filepath.Join(t.TempDir(), name), "cannot be read"},
	}
	k.Revoke("revoked") // after they have signed
	s := stage.Boot(t, stage.Config{Package: deb(t, newVersion), Prepare: func(t *testing.T, root string) {
		folder := filepath.Join(root, verify.Folder)
		if err := errors.Join(os.RemoveAll(folder), os.CopyFS(folder, os.DirFS(k.List(coretest.Builders...))),
			os.MkdirAll(filepath.Join(root, filepath.Dir(settings.File)), 0o755),
			os.WriteFile(filepath.Join(root, settings.File), []byte("program core\nnetwork regtest\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}})
	m := &manager{Stage: s, t: t}
	dir, program := t.TempDir(), appProgram(t)
	m.app, _ = s.PairIn(t, dir, s.Attacker(1).Way(t, entry(s)), "laptop", "owner")
	types := func(arguments ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), callTime)
		defer cancel()
		command := exec.CommandContext(ctx, program, arguments...)
		command.Env = append(os.Environ(), "BITBOX_APP_DIR="+dir)
		out, err := command.CombinedOutput()
		return string(out), err
	}
	// Of the machine everything is compared that an installation changes.
	state := func() string {
		return s.MustExec("find", filepath.Dir(bitcoincore.Owned), bitcoincore.Built, "-type", "f", "-printf", "%p %s %T@\n") +
			s.MustExec("systemctl", "show", "--property=MainPID,NRestarts,ActiveEnterTimestamp", generation.ChainUnit)
	}
	s.MustExec("mkdir", "-p", bitcoincore.Built) // find looks there
	refusals := func() {
		t.Helper()
		for what, c := range bad {
			before := state()
			out, err := types("node", "install", c.path, "--yes")
			last := out[strings.LastIndex(strings.TrimSuffix(out, "\n"), "\n")+1:]
			if err == nil || strings.Count(out, "bitbox-app: ") != 1 || !strings.HasPrefix(last, "bitbox-app: ") || !strings.Contains(last, c.says) {
				t.Errorf("%s: the command ends with %v and says %q, without %q", what, err, out, c.says)
			}
			if after := state(); after != before {
				t.Errorf("%s: the Base was\n%s\nand is\n%s", what, before, after)
			}
		}
	}
	refusals()
	out, err := types("node", "install", good("cyd", "ann", "bob"), "--yes")
	if err != nil || !strings.Contains(out, "The Base has installed Bitcoin Core 31.0, signed by ann, bob, cyd.") {
		t.Fatalf("%v: %s", err, out)
	}
	s.Until("it runs", func() error {
		_, err := s.Exec("sh", "-c", "echo 7 >"+settings.Data+"/core/answers")
		return err
	})
	s.Until("the owner sees the version that runs", func() error {
		out, err := types("node")
		if err == nil && (!strings.Contains(out, "Bitcoin Core 31.0.0") || !strings.Contains(out, "Height     7")) {
			err = errors.New(out)
		}
		return err
	})
	// The same with a release that runs.
	refusals()
	if out, err := types("node"); err != nil || !slices.Contains(strings.Fields(out), "31.0.0") {
		t.Errorf("afterwards: %v, %s", err, out)
	}
}

// spoiled changes one byte of a file.
func spoiled(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		b[len(b)/2] ^= 1
		err = os.WriteFile(path, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}
