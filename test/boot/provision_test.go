//go:build linux

package boot_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/provision"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

const provisionUnit = "bitbox-base-provision.service"

// A board gets a file that was damaged on its way, then a good one, then one that comes too late:
// in the sandbox of the real unit, at real boots.
func TestABootedBaseStaysClosedWithABadFileTakesAGoodOneAndIgnoresALateOne(t *testing.T) {
	t.Parallel()
	stage.NeedRoot(t, "dpkg-deb", "nmap")
	b := &booted{t: t}
	write := func(name string) []byte {
		t.Helper()
		var err error
		if b.owner, err = client.New(client.Options{Dir: t.TempDir(), Name: "builder", NoDiscovery: true}); err != nil {
			t.Fatal(err)
		}
		made, err := b.owner.Provision(t.TempDir(), client.ProvisionOptions{Name: name, NoDisplay: true, Pair: true})
		if err != nil {
			t.Fatal(client.Explain(err))
		}
		content, err := os.ReadFile(made.File)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	good := write("cellar")
	damaged := bytes.Replace(good, []byte("name cellar"), []byte("name mellar"), 1)
	b.Stage = stage.Install(t, stage.Config{Package: deb(t, oldVersion), Build: func(root string) error {
		return stage.Provision(root, damaged)
	}})
	b.way = b.Attacker(1).Way(t, entry(b.Stage)).Address
	file, state := b.Path(stage.ProvisionFile()), b.Path(generation.StateDirectory)

	b.Start()
	b.WaitState(provisionUnit, "failed")
	if journal := b.Journal(provisionUnit); !strings.Contains(journal, "damaged") || !strings.Contains(journal, "stays closed") {
		t.Errorf("the log says %q", journal)
	}
	for _, line := range b.Attacker(3).Scan(t, b.V4, "-sS", "-p-", "--min-rate", "20000") {
		if strings.HasSuffix(line, " open") {
			t.Errorf("with a bad file there answers %s", line)
		}
	}
	for _, name := range []string{"provision", "system.db"} {
		if _, err := os.Lstat(filepath.Join(state, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("with a bad file the Base has %s: %v", name, err)
		}
	}
	if kept, err := os.ReadFile(file); err != nil || !bytes.Equal(kept, damaged) {
		t.Errorf("the bad file was changed: %v", err)
	}
	b.Stop()

	put := func(content []byte) {
		t.Helper()
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(good)
	b.bootedIn("first boot with a good file in its place")
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the good file is still there: %v", err)
	}
	owner := b.owner
	b.Stop()

	put(write("mallory"))
	thief := b.owner
	b.owner = owner
	b.bootedIn("a boot with a file that comes too late")
	if err := b.ask(thief); !errors.Is(err, client.ErrSilent) {
		t.Errorf("the App of the late file is told %v", err)
	}
	if _, err := os.Lstat(file); err != nil {
		t.Errorf("the late file: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(state, provision.LateFile)); err != nil || !strings.Contains(b.Journal(provisionUnit), "too late") {
		t.Errorf("nobody hears of the late file: %v", err)
	}
	b.Until("the audit finds the late file", func() error {
		if out, _ := b.Exec("bitbox-base", "audit"); !strings.Contains(out, "provisioning-late") {
			return fmt.Errorf("it says %q", out)
		}
		return nil
	})
}
