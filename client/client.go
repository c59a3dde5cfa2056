// Package client implements an App for a Base. It finds Bases on the local network, pairs
// with one by a code that is compared on both sides, and calls its services over an encrypted
// channel. The command bitbox-app uses nothing else.
//
// [New] makes an [App]. The App stores its state in its directory: one database holds the
// keys of each pairing and the addresses of each Base, and a small file for each pairing
// holds the number of the last connection. Several processes may share the directory.
//
//	app, err := client.New(client.Options{})
//	...
//	session, err := app.Open("BitBox Base")
//	...
//	defer session.Close()
//	info, err := session.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
//
// # Pairing
//
// [App.Pair] shows a request number, which a person at the Base accepts, and then a code,
// which must be the same in the App and at the Base. Compare the two by eye: only this
// comparison keeps a man in the middle out. A pairing that fails after the App has revealed
// its half to the other side may have been the guess of an attacker, who has one chance in a
// million for each guess. So Pair never tries again by itself, and after three such failures
// it refuses for three minutes.
//
// # Errors
//
// Each failure is an [Error] with a kind ([ErrUnreachable], [ErrRevoked] and so on, for
// errors.Is) and a sentence for people ([Explain]). A call to which the Base has answered does not
// fail because the App cannot store something afterwards ([Options].Unstored), unless that guards
// against a Base that shows an older state later. No failure deletes stored data. A pairing
// stays until [App.Forget], except one that the Base never confirmed ([ErrPairAgain]).
package client

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
)

// DefaultPort is the TCP port of a Base.
const DefaultPort = 8845

// ProtocolVersion is the version of the wire protocol that this package speaks.
const ProtocolVersion = noiseconn.ProtocolVersion

// PairingState tells how far a pairing is.
type PairingState string

// The states of a pairing.
const (
	// Pending: both people have confirmed the code, and the Base has not been called since. The
	// first call makes it active.
	Pending PairingState = "pending"
	// Active: the Base has answered a call.
	Active PairingState = "active"
	// Revoked: the Base has said that this App was revoked.
	Revoked PairingState = "revoked"
	// Reset: this App has wiped the Base. A new pairing with the Base replaces this one.
	Reset PairingState = "reset"
)

// Usable tells whether the Base of a pairing can be called.
func (s PairingState) Usable() bool { return s != Revoked && s != Reset }

// Base is a pairing with a Base.
type Base struct {
	// Name is what the App calls the Base. It is unique, except for a pairing that this one is
	// about to replace.
	Name string
	// State tells how far the pairing is.
	State PairingState
	// PublicKey is the identity of the Base.
	PublicKey [32]byte
	// AppID and AppName are the Base's names for this App.
	AppID   string
	AppName string
	// Role is what this App was allowed to do at RoleAt: at the pairing, or when the Base last
	// reported it.
	Role   basev1.Role
	RoleAt time.Time
	// PairedAt is when the code was confirmed.
	PairedAt time.Time
	// Addresses are where the Base was last reached, each "host:port", the latest first.
	Addresses []string
}

// Options are the choices of New. The zero value is useful.
type Options struct {
	// Dir is where the App keeps its files, by default DefaultDir. It is created if needed,
	// readable only by this user.
	Dir string
	// Name is the name that the App gives a Base when it pairs, 1 to 63 bytes without control or
	// format characters; by default the machine's name.
	Name string
	// NoDiscovery keeps the App from asking the local network where a Base is.
	NoDiscovery bool
	// Unstored, if set, is called when the App cannot store what it has learned from a Base, such as its
	// role there. The call that it came with succeeds. It is called with the error at the first failure,
	// which is of kind ErrStorage, and with nil once anything is stored again. It must not call the App.
	Unstored func(error)
}

// App is one side of the pairings in one directory. It may be used by several
// goroutines.
type App struct {
	store       *store
	name        string
	noDiscovery bool

	saving background // such as storing where a Base is

	notes notes

	// Tests replace these.
	now         func() time.Time
	random      io.Reader
	codeModulus uint32
	opens       func(commitment [32]byte, p4 *noiseconn.P4) bool
	proves      func(got, want []byte) bool
	timing      timing
}

// opens tells whether P4 is what the other side had committed itself to.
func opens(commitment [32]byte, p4 *noiseconn.P4) bool {
	return noiseconn.Commit(p4.RB, p4.StateKey, p4.Role) == commitment
}

// timing has the durations that the App uses.
type timing struct {
	requestEvery  time.Duration // the pause between two sendings of a pairing request (wire protocol)
	giveUp        time.Duration // for how long a pairing request is repeated (wire protocol)
	requestAnswer time.Duration // the wait for the answer to one request
	tcp           time.Duration // the wait for a TCP connection
	handshake     time.Duration // the wait for an answer in a handshake
	ceremony      time.Duration // the time both people have for the code
	activate      time.Duration // how long Pair tries the new pairing before it returns
	pendingLife   time.Duration // how long a silent Base may still complete a pairing (wire protocol)
	stagger       time.Duration // the pause before the next address is tried
	discover      time.Duration // the wait for answers by mDNS
	lateness      time.Duration // silence counts from then on
	rehandshake   time.Duration // how long a connection takes new calls (wire protocol)
	redial        time.Duration // the least time between two connections that the Base asks for (wire protocol)
}

var defaultTiming = timing{
	requestEvery:  2 * time.Second,
	giveUp:        10 * time.Minute,
	requestAnswer: 8 * time.Second,
	tcp:           5 * time.Second,
	handshake:     6 * time.Second, // a Base gives up after 5 s
	ceremony:      150 * time.Second,
	activate:      20 * time.Second,
	pendingLife:   240 * time.Second,
	stagger:       300 * time.Millisecond,
	discover:      3 * time.Second,
	lateness:      lateness,
	rehandshake:   time.Hour,
	redial:        time.Minute,
}

// DefaultDir returns the folder bitbox-app in the user's folder for
// configuration (os.UserConfigDir).
func DefaultDir() (string, error) {
	parent, err := os.UserConfigDir()
	if err != nil {
		return "", fail(ErrStorage, err, "the folder for the App's files is not known (%v); name one", err)
	}
	return filepath.Join(parent, "bitbox-app"), nil
}

// New returns the App with its files in Options.Dir. It does not touch any file yet.
func New(o Options) (*App, error) {
	dir := o.Dir
	if dir == "" {
		var err error
		if dir, err = DefaultDir(); err != nil {
			return nil, err
		}
	}
	name := o.Name
	if name == "" {
		name = defaultName()
	}
	if err := noiseconn.CheckName(name); err != nil {
		return nil, fail(ErrInvalid, err, "the App's name %q cannot be used: %v", Printable(name), err)
	}
	a := &App{
		store:       &store{path: filepath.Join(dir, storeFile)},
		name:        name,
		noDiscovery: o.NoDiscovery,
		notes:       notes{tell: o.Unstored},
		now:         time.Now,
		random:      rand.Reader,
		codeModulus: noiseconn.CodeModulus,
		opens:       opens,
		proves:      func(got, want []byte) bool { return subtle.ConstantTimeCompare(got, want) == 1 },
		timing:      defaultTiming,
	}
	a.store.stored = a.notes.stored
	return a, nil
}

func defaultName() string {
	name, err := os.Hostname()
	name, _, _ = strings.Cut(name, ".")
	if err != nil || noiseconn.CheckName(name) != nil {
		return "App"
	}
	return name
}

// Bases returns every pairing, in the order of their names.
func (a *App) Bases() ([]Base, error) {
	pairings, err := a.store.pairings()
	if err != nil {
		return nil, err
	}
	bases := make([]Base, len(pairings))
	for n, p := range pairings {
		bases[n] = p.Base
	}
	return bases, nil
}

// Base returns the pairing with this name. An empty name means the only one.
func (a *App) Base(name string) (Base, error) {
	p, err := a.find(name)
	if err != nil {
		return Base{}, err
	}
	return p.Base, nil
}

func (a *App) find(name string) (*pairing, error) {
	pairings, err := a.store.pairings()
	if err != nil {
		return nil, err
	}
	// A revoked pairing may have the name of the one that replaces it.
	rank := map[PairingState]int{Active: 4, Pending: 3, Unclaimed: 2, Revoked: 1, Reset: 1}
	var found *pairing
	usable := 0
	for _, p := range pairings {
		if p.State.Usable() {
			usable++
		}
		if (name == "" || p.Name == name) && (found == nil || rank[p.State] > rank[found.State]) {
			found = p
		}
	}
	switch {
	case len(pairings) == 0:
		return nil, fail(ErrNoSuchBase, nil, "this App is not paired with any Base; pair first")
	case found == nil:
		return nil, fail(ErrNoSuchBase, nil, "this App is not paired with a Base named %q; it knows %s", Printable(name), names(pairings))
	case name == "" && usable > 1, name == "" && usable == 0 && len(pairings) > 1:
		return nil, fail(ErrSeveralBases, nil, "this App is paired with several Bases: name one of %s", names(pairings))
	}
	return found, nil
}

func names(pairings []*pairing) string {
	var list []string
	for _, p := range pairings {
		list = append(list, strconv.Quote(Printable(p.Name)))
	}
	return strings.Join(list, ", ")
}

// Forget deletes the App's side of a pairing. The Base is not told: it keeps the App in its list
// until an owner revokes it there.
func (a *App) Forget(name string) error {
	if name == "" {
		return fail(ErrInvalid, nil, "name the Base to forget")
	}
	p, err := a.find(name)
	if err != nil {
		return err
	}
	return a.store.remove(p.AppID)
}

// CheckAddress tells whether an address can be given to Open or Pair: "host", "host:port", an
// IPv6 address or "[v6]:port". The error is of kind ErrInvalid.
func CheckAddress(address string) error {
	_, err := withPort(address)
	return err
}

// withPort completes and checks an address: "host", "host:port", an IPv6
// address or "[v6]:port".
func withPort(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		// Without a port, colons can only belong to an IPv6 address.
		host, port = address, strconv.Itoa(DefaultPort)
		if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
			host = host[1 : len(host)-1]
		}
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err == nil && number == 0 {
		err = errors.New("0 is not a port")
	}
	if strings.Contains(host, ":") && err == nil {
		var ip netip.Addr
		if ip, err = netip.ParseAddr(host); err == nil && ip.IsLinkLocalUnicast() && ip.Zone() == "" {
			return "", fail(ErrInvalid, nil, "the address %s is valid only on one network; append the name of this machine's interface there: %s%%%s", host, host, anInterface())
		}
	}
	if err != nil || host == "" || strings.ContainsAny(host, " /@[]") || Printable(host) != host {
		return "", fail(ErrInvalid, err, "%q is not an address; write host:port, such as 192.168.1.20:%d", Printable(address), DefaultPort)
	}
	return net.JoinHostPort(host, strconv.FormatUint(number, 10)), nil
}

// anInterface names an interface of the machine, as an example.
func anInterface() string {
	all, _ := net.Interfaces() // without one, there is still an example
	for _, i := range all {
		if i.Flags&net.FlagUp != 0 && i.Flags&net.FlagMulticast != 0 && i.Flags&net.FlagLoopback == 0 {
			return i.Name
		}
	}
	return "eth0"
}

// roleOf checks the role in P4.
func roleOf(b byte) (basev1.Role, error) {
	switch role := basev1.Role(b); role {
	case basev1.Role_ROLE_VIEWER, basev1.Role_ROLE_OPERATOR, basev1.Role_ROLE_OWNER:
		return role, nil
	}
	return 0, fmt.Errorf("the Base granted the unknown role %d", b)
}
