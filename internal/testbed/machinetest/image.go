package machinetest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/host"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/proxy"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/slot"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/slottest"
)

// board is a Software's machine once it runs the image: a disk with two slots.
type board struct {
	disk  *slottest.Machine
	slots *slot.Slots
	boots int
}

// ImageRelease returns the release file of an image, signed by the maker of releases.
func ImageRelease(version string) []byte {
	r := slottest.NewRelease(version, Architecture, signingSeed(1))
	return slices.Concat(r.Preamble, r.Parts)
}

// ReleaseKey verifies the releases of tests.
func ReleaseKey() ed25519.PublicKey { return release.PublicKey(signingSeed(1)) }

// Feed returns a signed list with one release of an image. Its file is named image.release.
func Feed(version string, issued time.Time) ([]byte, error) {
	hash := ImageRootHash(version)
	return release.SignFeed(release.Feed{Issued: issued, Expires: issued.Add(24 * time.Hour), Releases: []release.FeedRelease{{
		Version: version, Architecture: Architecture, RootHash: hex.EncodeToString(hash[:]), File: "image.release",
		Size: uint64(len(ImageRelease(version))), Changes: "Closes a hole.", ClosesHole: true,
	}}}, signingSeed(1))
}

// ImageRootHash is the root hash of such a release.
func ImageRootHash(version string) [32]byte {
	return slottest.NewRelease(version, Architecture, signingSeed(1)).Header.Image.RootHash
}

// BecomeImage has the appliance run the image, in its first version, from now on.
func (s *Software) BecomeImage() error {
	b := &board{disk: slottest.NewMachine(slottest.NewRelease(FirstVersion, Architecture, signingSeed(1)))}
	if err := b.boot(); err != nil {
		return err
	}
	s.mu.Lock()
	s.board = b
	s.mu.Unlock()
	return s.imageInstaller().Settle(context.Background())
}

func (b *board) boot() (err error) {
	b.disk.Restart()
	b.boots++
	b.slots, err = b.disk.Start()
	return err
}

func (s *Software) imageInstaller() *update.ImageInstaller {
	return &update.ImageInstaller{
		Store: s.store, Host: imageHost{s}, Slots: s.board.slots, Key: release.PublicKey(signingSeed(1)),
		Prove: time.Second, Calm: 20 * time.Millisecond, Look: 5 * time.Millisecond, Confirm: 30 * time.Second,
	}
}

// live does what systemd does on a machine that restarts. Its journal says how it went.
func (s *Software) live(ctx context.Context) {
	err := s.imageInstaller().Run(ctx)
	for errors.Is(err, update.ErrRestarting) {
		s.mu.Lock()
		err = s.board.boot()
		s.mu.Unlock()
		if err != nil {
			return
		}
		s.restart()
		err = s.imageInstaller().Settle(ctx)
	}
}

// running is what the report says.
func (s *Software) running() *posture.RunningImage {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.board == nil {
		return nil
	}
	version := s.board.slots.Running
	hash := ImageRootHash(version)
	if version == s.forged {
		hash[0] ^= 1
	}
	return &posture.RunningImage{Version: version, Architecture: Architecture, Slot: s.board.slots.Letter, RootHash: hash, SecureBoot: "on"}
}

// Identities makes a host key and certificates below a directory, and reads them as the helper does,
// with what the machine runs.
func (s *Software) Identities(directory string, e posture.Effective) posture.Identities {
	hostKey := filepath.Join(directory, "host_ed25519")
	_ = sshaccess.EnsureHostKey(rand.Reader, hostKey)
	for _, endpoint := range e.Endpoints {
		if endpoint.Kind != posture.KindEntry {
			_, _ = proxy.EnsureCertificate(rand.Reader, directory, string(endpoint.Kind))
		}
	}
	i := host.IdentitiesIn(hostKey, directory, e)
	i.Image = s.running()
	return i
}

// Forge has a version report another root hash than that of its release.
func (s *Software) Forge(version string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forged = version
}

// imageHost implements update.ImageHost.
type imageHost struct{ *Software }

// BootID counts.
func (h imageHost) BootID() (string, error) { return fmt.Sprint("boot ", h.board.boots), nil }

// Oldest is any version.
func (h imageHost) Oldest(context.Context) (string, error) { return "", nil }

// Reboot is done by live.
func (h imageHost) Reboot(context.Context) error { return nil }
