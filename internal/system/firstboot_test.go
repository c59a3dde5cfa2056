package system

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/sshaccess"
)

// atFirstBoot prepares a Base whose image asks for something, and returns what is
// left of SSH's lease then.
func atFirstBoot(t *testing.T, content []byte, key bool) (b *base, left time.Duration) {
	t.Helper()
	b = newBase(t)
	if key {
		b.config.Factory.SSHKeys = []sshaccess.Key{testKey()}
	}
	if content != nil {
		if err := os.WriteFile(filepath.Join(b.directory, FirstBootFile), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return b, b.prepared()
}

// prepared boots as far as the packet filter.
func (b *base) prepared() (left time.Duration) {
	b.t.Helper()
	if err := Prepare(b.config); err != nil {
		b.t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(b.directory, FirstBootFile)); err == nil {
		b.t.Error("what was asked for at the first boot can be asked for again")
	}
	h, err := Open(b.config)
	if err != nil {
		b.t.Fatal(err)
	}
	defer h.Close()
	if ssh := h.Effective().SSH; ssh != nil {
		return ssh.Remaining
	}
	return 0
}

func TestSSHFromTheFirstBootIsALeaseThatIsGrantedOnce(t *testing.T) {
	b, left := atFirstBoot(t, FirstBoot(2*time.Hour), true)
	if left <= 0 || left > 2*time.Hour {
		t.Fatalf("%v are left", left)
	}
	b.config.BootID = "boot 2"
	if left := b.prepared(); left != 0 {
		t.Errorf("after a reboot %v are left", left)
	}
}

func TestWithoutBeingAskedForSSHIsOffAtTheFirstBoot(t *testing.T) {
	for what, content := range map[string][]byte{
		"nothing":          nil,
		"an empty file":    {},
		"another word":     []byte("ssh-lease-please 7200\n"),
		"a negative time":  []byte("ssh-lease -7200\n"),
		"for ever":         []byte("ssh-lease 99999999\n"),
		"a second line":    []byte("ssh-lease 7200\nssh-lease 7200\n"),
		"a very long line": make([]byte, 1<<20),
	} {
		if _, left := atFirstBoot(t, content, true); left != 0 {
			t.Errorf("%s: SSH is on for %v", what, left)
		}
	}
	if _, left := atFirstBoot(t, FirstBoot(2*time.Hour), false); left != 0 {
		t.Errorf("without a key SSH is on for %v", left)
	}
}
