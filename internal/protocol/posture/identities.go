package posture

import (
	"crypto/sha256"
	"maps"
	"slices"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// Identities are how a client of what a Base opens recognises the Base: the App shows
// them, signed by the helper, so that nobody trusts a key at first sight.
type Identities struct {
	// SSHHostKey is sshd's public key in the wire format of SSH (RFC 4253, section 6.6);
	// empty if there is none yet.
	SSHHostKey []byte
	// Certificates are the SHA-256 digests of the certificates of extra APIs.
	Certificates map[Kind][sha256.Size]byte
}

func (i Identities) addTo(report *systemv1.PostureReport) {
	report.SshHostKey = i.SSHHostKey
	for _, kind := range slices.Sorted(maps.Keys(i.Certificates)) {
		digest := i.Certificates[kind]
		report.Certificates = append(report.Certificates, &systemv1.CertificateDigest{Kind: string(kind), Sha256: digest[:]})
	}
}

// Identities returns how a client recognises what was open when the report was signed.
func (v *View) Identities() Identities {
	i := Identities{SSHHostKey: v.report.GetSshHostKey(), Certificates: map[Kind][sha256.Size]byte{}}
	for _, c := range v.report.GetCertificates() {
		if digest := c.GetSha256(); len(digest) == sha256.Size {
			i.Certificates[Kind(c.GetKind())] = [sha256.Size]byte(digest)
		}
	}
	return i
}
