package update

import (
	"crypto/ed25519"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

// releaseKey is the public key of whoever makes the releases, in hexadecimal. The
// build sets it (-ldflags "-X …/internal/update.releaseKey=…", see the Makefile);
// without it a Base takes no update at all. There is no key that is known to the
// public, on purpose: one would have been shipped some day.
var releaseKey string

// ReleaseKey returns the key that was built in; nil: this Base takes no updates.
func ReleaseKey() (ed25519.PublicKey, error) {
	if releaseKey == "" {
		return nil, nil
	}
	return release.ParsePublicKey(releaseKey)
}
