package system

import (
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/factoryreset"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/ledger"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

// booted boots as far as the packet filter, and returns what is left of SSH's lease.
func (b *base) booted() (left time.Duration) {
	b.t.Helper()
	if err := ledger.Prepare(b.config.Config); err != nil {
		b.t.Fatal(err)
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

func imageWithKey(t *testing.T, lease time.Duration) *base {
	t.Helper()
	b := newBase(t)
	b.config.Factory.SSHKeys, b.config.FirstLease = []sshkey.Key{testKey()}, lease
	return b
}

func TestSSHFromTheFirstBootIsALeaseThatIsGrantedOnce(t *testing.T) {
	b := imageWithKey(t, 2*time.Hour)
	if left := b.booted(); left <= 0 || left > 2*time.Hour {
		t.Fatalf("%v are left", left)
	}
	b.config.BootID = "boot 2"
	if left := b.booted(); left != 0 {
		t.Errorf("after a reboot %v are left", left)
	}
}

func TestWithoutBeingAskedForSSHIsOffAtTheFirstBoot(t *testing.T) {
	if left := imageWithKey(t, 0).booted(); left != 0 {
		t.Errorf("SSH is on for %v", left)
	}
}

// After a reset the builder of the image does not get in again.
func TestAResetBaseDoesNotGrantSSHAgain(t *testing.T) {
	b := imageWithKey(t, 2*time.Hour)
	if err := factoryreset.Order(b.directory, factoryreset.Record{By: "console"}); err != nil {
		t.Fatal(err)
	}
	if err := factoryreset.Finish(factoryreset.Plan{Directory: b.directory}); err != nil {
		t.Fatal(err)
	}
	if left := b.booted(); left != 0 {
		t.Errorf("SSH is on for %v", left)
	}
}
