package release

import "crypto/ed25519"

// builtIn is the public key of the maker of releases, in hexadecimal. The build sets it
// (-ldflags "-X …/internal/protocol/release.builtIn=…", see the Makefile). Without it a Base takes
// no update, and an App reads no list of releases. There is no well-known key on purpose: one
// would have been shipped some day.
var builtIn string

// BuiltInKey returns the key that this program was built with; nil: it has none.
func BuiltInKey() (ed25519.PublicKey, error) {
	if builtIn == "" {
		return nil, nil
	}
	return ParsePublicKey(builtIn)
}
