// Package posture describes how open a Base is: the one typed value from which every
// network-facing configuration is derived, and the rules for changing it.
//
// # The state in force
//
// An owner signs a [Posture]. Its exceptions (SSH, an extra API) are leases, which end by
// themselves, except for an extra API that an owner has opened until somebody closes it.
// Restrictions close something at once and need no signature. The signed Posture, limited by all
// restrictions and by the leases that still run, is an [Effective]. Only an Effective is rendered
// into the configuration of the servers and the packet filter.
//
// # Who may change it
//
// A posture travels as a document (document.go): bytes with a signature over exactly these
// bytes. Documents form a chain, in which each names the hash of the one before (chain.go).
// Opening something needs the signature of an owner's App that was enrolled by the ceremony at
// the Base. Closing something appends a restriction to a separate chain, so that closing never
// makes an owner's document stale. Changes by root at the Base's console are recorded as local.
//
// # The two sides
//
// The [Ledger] is the machine in the system helper. It takes documents, restrictions, tries and
// confirmations, and counts down leases. It does no I/O and reads no clock: each call gets the
// time and returns the bytes to save. The [View] is the App's side: it verifies a chain from its
// bytes, and refuses a chain that is older than one that the App has seen.
package posture

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

// EntryPort is the single entry, TCP: the encrypted channel, and TLS of an extra
// API beside it when an owner has opened it there.
const EntryPort = 8845

// Kind names a service that can be reached from the network. The list is
// constant: a document cannot invent one.
type Kind string

const (
	// KindEntry is the encrypted channel on EntryPort. It is always there and
	// has no lease.
	KindEntry Kind = "entry"
	// KindElectrum is the Electrum API over TLS.
	KindElectrum Kind = "electrum"
	// KindSSH is sshd. It is not an endpoint behind the entry, but it is leased
	// like one.
	KindSSH Kind = "ssh"
)

// Extra describes an extra API that an owner may open.
type Extra struct {
	Kind Kind
	// Title is what a person reads.
	Title string
	// Port is the one it has when it does not share EntryPort.
	Port uint16
}

// Extras are all that there are. An extra API always speaks TLS: that is how
// the entry tells it from the encrypted channel.
var Extras = []Extra{
	{Kind: KindElectrum, Title: "Electrum API", Port: 50002},
}

// Service names a service whose own user may open connections to the internet, and
// not to the owner's home, or to the home alone. The list is constant.
type Service string

// The services that may be named in Posture.Egress.
const (
	ServiceBitcoin   Service = "bitcoin"
	ServiceLightning Service = "lightning"
	ServiceTor       Service = "tor"
	// Peers in the owner's home: private and link-local addresses.
	ServiceBitcoinHome   Service = "bitcoin-home"
	ServiceLightningHome Service = "lightning-home"
)

// Services are all that there are, in order.
var Services = []Service{ServiceBitcoin, ServiceLightning, ServiceTor, ServiceBitcoinHome, ServiceLightningHome}

// Posture is the content of a document: how open the Base shall be.
type Posture struct {
	// NodeName is the name of the Base. It opens nothing.
	NodeName string
	// Apps are the paired Apps, in the order of their pairing. A document of an
	// owner can take one away or change its role; only the ceremony at the Base
	// adds one.
	Apps []App
	// PairingClosed: no pairing window can be opened from the network. The
	// console can always open one.
	PairingClosed bool
	Bans          BanPolicy
	// SSHKeys are the keys that may log in while SSH is on. They may be there
	// while it is off.
	SSHKeys []sshkey.Key
	// SSH is nil while it is off.
	SSH *Lease
	// Extras are the extra APIs, at most one of each kind.
	Extras []ExtraEndpoint
	// Egress are the services that may reach the internet, or the owner's home.
	Egress []Service
	// OldestVersion is the oldest version of the software that the Base may go back to; empty:
	// any.
	OldestVersion string
}

// App is a paired App: its signing key, and what it may do.
type App struct {
	SigningKey SigningKey
	Role       basev1.Role
	Name       string
	// ID is the stable id of the pairing, 16 hexadecimal digits (base.proto).
	ID string
}

// SigningKey is K_sign of an App, its Ed25519 public key.
type SigningKey [ed25519.PublicKeySize]byte

// String returns the key in hexadecimal.
func (k SigningKey) String() string { return hex.EncodeToString(k[:]) }

// BanPolicy says when an address is banned, on SSH and on the entry alike. An
// address with MaxTries failures within Window is banned for BanTime.
type BanPolicy struct {
	// MaxTries is 3 to 20, 5 by default.
	MaxTries uint32
	// Window is 1 minute to 1 day, 10 minutes by default.
	Window time.Duration
	// BanTime is 1 minute to 7 days, 1 hour by default.
	BanTime time.Duration
}

// Lease is how long something is open: for a time, or until somebody closes it.
type Lease struct {
	// Length is 5 minutes to 7 days, in whole seconds, counted on the boot-time
	// clock from the moment the revision GrantedIn was accepted; 0 if UntilClosed.
	Length time.Duration
	// UntilClosed: it has no end of its own, and outlives a reboot. SSH never has it.
	UntilClosed bool
	// GrantedIn is the revision that granted it: the document's own, then the
	// lease begins; or an earlier one, then it goes on with what is left of it.
	GrantedIn uint64
}

// ExtraEndpoint is an extra API that is open.
type ExtraEndpoint struct {
	Kind Kind
	// OwnPort: it listens on a port of its own (Extra.Port). Otherwise it
	// shares EntryPort.
	OwnPort bool
	Lease   Lease
	// From are the networks that reach it; empty: every network.
	From Networks
}

// Factory returns revision 0, the posture of the package: the entry alone, SSH
// off, no keys, nobody paired. An image may add SSHKeys.
func Factory() Posture {
	return Posture{
		NodeName: "BitBox Base",
		Bans:     BanPolicy{MaxTries: 5, Window: 10 * time.Minute, BanTime: time.Hour},
	}
}

// Effective is what is in force. It is plain data for those who render it;
// lists are sorted, so that equal ones render equally.
type Effective struct {
	// Revision is the one of the document that it comes from.
	Revision uint64
	NodeName string
	// Endpoints begin with the entry; the extra APIs follow in the order of
	// Extras.
	Endpoints []Endpoint
	// SSH is nil while it is off: no process, no open port, no key in the file.
	SSH  *SSH
	Bans BanPolicy
	// PairingClosed: no window may be opened from the network.
	PairingClosed bool
	// Egress are the services that may reach the internet, in the order of
	// Services.
	Egress []Service
	// OldestVersion is the oldest version that the Base may run; empty: any.
	OldestVersion string
	// Apps are those that may have a session, sorted by their key. While a document
	// is not settled, each has the lower of its roles before and after.
	Apps []App
	// Lockdown tells that one is in force. Its effect is already in the other
	// fields.
	Lockdown bool
	// KnownSSHKeys are the keys that an owner keeps, on or off. They are for
	// people to see; only SSH.Keys let somebody in.
	KnownSSHKeys []sshkey.Key
}

// Endpoint is a service behind the entry that can be reached from the network.
type Endpoint struct {
	Kind Kind
	// Port is the TCP port: EntryPort when Shared and for KindEntry.
	Port uint16
	// Shared: an extra API on EntryPort, told from the channel by its TLS.
	Shared bool
	// Remaining is what is left of its lease at the time the Effective was
	// made; 0 for the entry and if UntilClosed. Nothing is rendered from it.
	Remaining time.Duration
	// UntilClosed: it has no end, and lasts until somebody closes it.
	UntilClosed bool
	// From are the networks that reach it; empty: every network.
	From Networks
}

// SSH is sshd while it is on.
type SSH struct {
	// Keys that may log in, at least one, sorted by Line.
	Keys []sshkey.Key
	// Remaining is what is left of the lease at the time the Effective was made.
	// Nothing is rendered from it.
	Remaining time.Duration
}

// compareApps sorts by key.
func compareApps(a, b App) int { return bytes.Compare(a.SigningKey[:], b.SigningKey[:]) }
