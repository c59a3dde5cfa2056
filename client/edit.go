package client

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

// Edit makes a new posture from the present one. A new lease has GrantedIn set to next, the
// number of the new revision. Edit may be called several times.
type Edit func(p *Posture, view *PostureView, next uint64) error

// MinLease and MaxLease bound the time for which something can be opened, in whole seconds.
const (
	MinLease = posture.MinLease
	MaxLease = posture.MaxLease
)

// MaxNetworks is how many networks can limit an extra API.
const MaxNetworks = posture.MaxNetworks

// Extras are the kinds of extra APIs that can be exposed.
func Extras() []string {
	var kinds []string
	for _, extra := range posture.Extras {
		kinds = append(kinds, string(extra.Kind))
	}
	return kinds
}

// notLocked refuses to open something that would stay closed.
func notLocked(view *PostureView) error {
	if view.Effective().Lockdown {
		return fail(ErrInvalid, nil, "the Base is locked down, and nothing can be opened; lift the lockdown first")
	}
	return nil
}

// Opening is how an extra API is opened: for a time, or until somebody closes it.
type Opening struct {
	// For is MinLease to MaxLease, in whole seconds; 0 if UntilClosed.
	For         time.Duration
	UntilClosed bool
	// ShareEntry puts it on the port of the encrypted channel, instead of a port of its own.
	ShareEntry bool
	// From are the networks that reach it, as ParseNetwork returns them; empty: every network. Not
	// with ShareEntry.
	From []netip.Prefix
}

// ParseNetwork reads a network such as "192.168.1.0/24" or "fd00::/64", or one address. The error
// is a sentence that says what to write instead.
func ParseNetwork(text string) (netip.Prefix, error) { return posture.ParseNetwork(text) }

// PublicNetworks returns the networks that have addresses of strangers, because they are not within
// a private one.
func PublicNetworks(networks []netip.Prefix) []netip.Prefix {
	return posture.Networks(networks).Public()
}

// Expose opens an extra API. If it is already open, its lease starts again.
func Expose(kind string, how Opening) Edit {
	return func(p *Posture, view *PostureView, next uint64) error {
		p.Extras = slices.DeleteFunc(slices.Clone(p.Extras), func(e posture.ExtraEndpoint) bool { return e.Kind == posture.Kind(kind) })
		p.Extras = append(p.Extras, posture.ExtraEndpoint{
			Kind: posture.Kind(kind), OwnPort: !how.ShareEntry, From: posture.Minimal(how.From),
			Lease: posture.Lease{Length: how.For, UntilClosed: how.UntilClosed, GrantedIn: next}})
		return notLocked(view)
	}
}

// SetOldestVersion allows no version of the software older than one; empty allows any.
func SetOldestVersion(version string) Edit {
	return func(p *Posture, view *PostureView, _ uint64) error {
		if version != "" && !release.IsVersion(version) {
			return fail(ErrInvalid, nil, "%q is not a version, such as 1.3.0", Printable(version))
		}
		if image := view.Identities().Image; image != nil && release.Below(image.Version, version) {
			return fail(ErrInvalid, nil, "the Base runs version %s, so version %s cannot be the oldest; update the Base first", image.Version, version)
		}
		p.OldestVersion = version
		return nil
	}
}

// Names of the Bitcoin node for LetOut, KeepIn and LetsOut: on the internet, and in the owner's home,
// which the first does not include.
const (
	NodeInternet = string(posture.ServiceBitcoin)
	NodeHome     = string(posture.ServiceBitcoinHome)
)

// LetOut lets a service of the Base open connections to the internet, or to the home.
func LetOut(service string) Edit {
	return func(p *Posture, _ *PostureView, _ uint64) error {
		if !slices.Contains(posture.Services, posture.Service(service)) {
			return fail(ErrInvalid, nil, "%q is not a service that an owner can let out", Printable(service))
		}
		if !slices.Contains(p.Egress, posture.Service(service)) {
			p.Egress = append(slices.Clone(p.Egress), posture.Service(service))
		}
		return nil
	}
}

// KeepIn takes away what LetOut has allowed.
func KeepIn(services ...string) Edit {
	return func(p *Posture, _ *PostureView, _ uint64) error {
		p.Egress = slices.DeleteFunc(slices.Clone(p.Egress), func(s posture.Service) bool { return slices.Contains(services, string(s)) })
		return nil
	}
}

// LetsOut tells whether a posture lets a service out.
func LetsOut(view *PostureView, service string) bool {
	return slices.Contains(view.Effective().Egress, posture.Service(service))
}

// EnableSSH switches SSH on for a time. It needs a key.
func EnableSSH(length time.Duration) Edit {
	return func(p *Posture, view *PostureView, next uint64) error {
		if len(p.SSHKeys) == 0 {
			return fail(ErrInvalid, nil, "SSH cannot be switched on without a key that could log in; add one first")
		}
		p.SSH = &posture.Lease{Length: length, GrantedIn: next}
		return notLocked(view)
	}
}

// Rename gives the Base another name, which mDNS announces as well.
func Rename(name string) Edit {
	return func(p *Posture, _ *PostureView, _ uint64) error {
		if err := noiseconn.CheckName(name); err != nil {
			return fail(ErrInvalid, err, "%q cannot be the name of a Base: %v; a name has 1 to %d bytes, all of them visible, such as \"kitchen\"",
				Printable(name), err, noiseconn.MaxNameSize)
		}
		p.NodeName = name
		return nil
	}
}

// AddSSHKeys adds the public keys in a text in the form of .pub files and code forges: one key
// per line, or one in the format of RFC 4716. A name that is not empty replaces the comments. A
// key that is already listed gets its new name.
func AddSSHKeys(text, name string) Edit {
	return func(p *Posture, _ *PostureView, _ uint64) error {
		keys, err := sshkey.Read([]byte(text), name)
		if err != nil {
			return err
		}
		p.SSHKeys = slices.DeleteFunc(slices.Clone(p.SSHKeys), func(old sshkey.Key) bool {
			return slices.ContainsFunc(keys, func(key sshkey.Key) bool { return key.Fingerprint == old.Fingerprint })
		})
		p.SSHKeys = append(p.SSHKeys, keys...)
		return nil
	}
}

// RemoveSSHKey removes a key, by its fingerprint or its comment. Removing the last key switches
// SSH off.
func RemoveSSHKey(which string) Edit {
	return func(p *Posture, _ *PostureView, _ uint64) error {
		isMeant := func(k sshkey.Key) bool { return k.Fingerprint == which || k.Comment == which && which != "" }
		keys := slices.DeleteFunc(slices.Clone(p.SSHKeys), isMeant)
		switch len(p.SSHKeys) - len(keys) {
		case 0:
			return fail(ErrNoSuchKey, nil, "the Base has no SSH key with the name or fingerprint %q", Printable(which))
		case 1:
		default:
			return fail(ErrNoSuchKey, nil, "several SSH keys are named %q; give the fingerprint of the one you mean", Printable(which))
		}
		p.SSHKeys = keys
		if len(keys) == 0 {
			p.SSH = nil
		}
		return nil
	}
}

// GoBack goes back to the settings of an earlier revision, with the Apps of today. Its leases
// that have ended start again.
func GoBack(revision uint64) Edit {
	return func(p *Posture, view *PostureView, _ uint64) (err error) {
		*p, err = view.Back(revision)
		return err
	}
}

// Keep changes nothing. With Change.Unlock, it reopens what a lockdown has closed for the rest of
// its lease.
func Keep(*Posture, *PostureView, uint64) error { return nil }

// KeepClosed ends what a lockdown has closed, SSH and extra APIs, for good: with Change.Unlock,
// the unlocked Base stays closed.
func KeepClosed(p *Posture, view *PostureView, _ uint64) error {
	if view.Effective().Lockdown {
		p.SSH, p.Extras = nil, nil
	}
	return nil
}

// ErrNoSuchKey: no SSH key matches, or several do.
var ErrNoSuchKey = errors.New("no such SSH key")
