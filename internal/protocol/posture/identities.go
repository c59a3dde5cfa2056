package posture

import (
	"crypto/sha256"
	"maps"
	"slices"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

// Identities are how a client of what a Base opens recognises the Base, and what the Base runs:
// the App shows them, signed by the helper, so that nobody trusts a key at first sight.
type Identities struct {
	// SSHHostKey is sshd's public key in the wire format of SSH (RFC 4253, section 6.6);
	// empty if there is none yet.
	SSHHostKey []byte
	// Certificates are the SHA-256 digests of the certificates of extra APIs.
	Certificates map[Kind][sha256.Size]byte
	// Image is what the Base runs; nil: it is a Debian with the package.
	Image *RunningImage
	// Node is the node that was chosen; nil: the helper does not say.
	Node *basev1.ChosenNode
}

// RunningImage is what a Base with the image runs, by its own word: an attacker between the App
// and the system helper cannot forge it, but somebody who controls the machine can.
type RunningImage struct {
	Version, Architecture string
	// Slot is "a" or "b".
	Slot string
	// RootHash is that of dm-verity: it names every byte of the root file system.
	RootHash [sha256.Size]byte
	// SecureBoot is "on", "off", "setup" (off, and keys can be enrolled), "none" (no UEFI) or
	// "unknown".
	SecureBoot string
}

// secureBoots are the words for what the report says.
var secureBoots = map[systemv1.RunningImage_SecureBoot]string{
	systemv1.RunningImage_SECURE_BOOT_UNSPECIFIED: "unknown", systemv1.RunningImage_SECURE_BOOT_ON: "on",
	systemv1.RunningImage_SECURE_BOOT_OFF: "off", systemv1.RunningImage_SECURE_BOOT_SETUP: "setup",
	systemv1.RunningImage_SECURE_BOOT_NONE: "none",
}

func (i *RunningImage) proto() *systemv1.RunningImage {
	if i == nil {
		return nil
	}
	m := &systemv1.RunningImage{Version: i.Version, Architecture: i.Architecture, Slot: i.Slot, RootHash: i.RootHash[:]}
	for value, word := range secureBoots {
		if word == i.SecureBoot {
			m.SecureBoot = value
		}
	}
	return m
}

// imageOf reads the image that a report names, or nil if no Base would write it.
func imageOf(m *systemv1.RunningImage) *RunningImage {
	if m == nil || len(m.GetRootHash()) != sha256.Size || !release.IsVersion(m.GetVersion()) {
		return nil
	}
	if slot := m.GetSlot(); slot != "a" && slot != "b" {
		return nil
	}
	word, known := secureBoots[m.GetSecureBoot()]
	if !known {
		word = "unknown"
	}
	return &RunningImage{Version: m.GetVersion(), Architecture: m.GetArchitecture(), Slot: m.GetSlot(),
		RootHash: [sha256.Size]byte(m.GetRootHash()), SecureBoot: word}
}

func (i Identities) addTo(report *systemv1.PostureReport) {
	report.SshHostKey = i.SSHHostKey
	report.Image = i.Image.proto()
	report.Node = i.Node
	for _, kind := range slices.Sorted(maps.Keys(i.Certificates)) {
		digest := i.Certificates[kind]
		report.Certificates = append(report.Certificates, &systemv1.CertificateDigest{Kind: string(kind), Sha256: digest[:]})
	}
}

// Identities returns how a client recognises what was open when the report was signed.
func (v *View) Identities() Identities {
	i := Identities{SSHHostKey: v.report.GetSshHostKey(), Certificates: map[Kind][sha256.Size]byte{}, Image: imageOf(v.report.GetImage()),
		Node: v.report.GetNode()}
	for _, c := range v.report.GetCertificates() {
		if digest := c.GetSha256(); len(digest) == sha256.Size {
			i.Certificates[Kind(c.GetKind())] = [sha256.Size]byte(digest)
		}
	}
	return i
}
