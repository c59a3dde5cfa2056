package client

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/discovery"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/announcement"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/provisioning"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

// Unclaimed is the state of a pairing that a provisioning file promises to this App: the App has
// not met its Base yet. The next call claims it.
const Unclaimed PairingState = "unclaimed"

var (
	// ErrSecondBoard: more than one machine answers to the claim.
	ErrSecondBoard = errors.New("a second board answers to the claim")
	// ErrFileExists: a provisioning file is there already, and was not to be replaced.
	ErrFileExists = errors.New("a provisioning file is there already")
)

// ProvisionOptions are what a new Base is told. The zero value tells it nothing.
type ProvisionOptions struct {
	// Name of the Base, 1 to 63 bytes.
	Name string
	// SSHKey is the path of a file with SSH public keys, as people have them; empty: none.
	SSHKey string
	// SSHLease is how long SSH is on from the first boot on; 0: until an owner switches it on.
	SSHLease time.Duration
	// NoDisplay: nobody can stand before the Base and compare a code.
	NoDisplay bool
	// Pair makes this App the Base's owner.
	Pair bool
	// Replace replaces a file that is there.
	Replace bool
}

// Provisioned is what Provision has made.
type Provisioned struct {
	// File is the path of the provisioning file.
	File string
	// SSHKeys are the fingerprints of the keys in it.
	SSHKeys []string
	// Base is the pairing, if the file has a claim for this App, and Until when that expires.
	Base  *Base
	Until time.Time
}

// storedClaim is what an App keeps of a claim.
type storedClaim struct {
	Secret []byte    `json:"secret"`
	Until  time.Time `json:"until"`
}

// claim is a storedClaim with its secret parsed.
type claim struct {
	secret    noiseconn.ClaimSecret
	discovery noiseconn.DiscoveryKey // of a Base that waits for the claim
	until     time.Time
}

func (s *storedClaim) parse() (c *claim, err error) {
	if s == nil {
		return nil, nil
	}
	c = &claim{until: s.Until}
	if c.secret, err = noiseconn.ParseClaimSecret(s.Secret); err != nil {
		return nil, err
	}
	c.discovery, err = noiseconn.ClaimDiscoveryKey(c.secret)
	return c, err
}

// Provision writes the provisioning file of a new Base into a directory: the root of the EFI
// partition of the Base's disk, or any other. It writes nothing unless all of it can be used.
func (a *App) Provision(directory string, o ProvisionOptions) (Provisioned, error) {
	made := Provisioned{File: filepath.Join(directory, bootdisk.ProvisionFile)}
	if info, err := os.Stat(directory); err != nil || !info.IsDir() {
		return Provisioned{}, fail(ErrInvalid, err, "%s is no directory; mount the EFI partition of the Base's disk and name it",
			Printable(directory))
	}
	if _, err := os.Lstat(made.File); !errors.Is(err, fs.ErrNotExist) && !o.Replace {
		return Provisioned{}, fail(ErrFileExists, err, "%s is there already, for a Base that has not read it yet", Printable(made.File))
	}
	file := provisioning.File{Name: o.Name, SSHLease: o.SSHLease, NoDisplay: o.NoDisplay}
	if o.SSHKey != "" {
		var err error
		if file.SSHKeys, err = sshkey.ReadFile(o.SSHKey, ""); err != nil {
			return Provisioned{}, fail(ErrInvalid, err, "%v", err)
		}
		for _, key := range file.SSHKeys {
			made.SSHKeys = append(made.SSHKeys, key.Fingerprint)
		}
	}
	if err := file.Check(); err != nil {
		return Provisioned{}, fail(ErrInvalid, err, "%v", err)
	}
	undo := func() error { return nil }
	if o.Pair {
		id, err := a.promise(&file)
		if err != nil {
			return Provisioned{}, err
		}
		undo = func() error { return a.store.remove(id) }
		p, err := a.store.pairing(id)
		if err != nil {
			return Provisioned{}, err
		}
		made.Base, made.Until = &p.Base, file.Claim.Until
	}
	content, err := file.Marshal()
	if err == nil {
		err = atomicfile.WriteFileAtomic(made.File, content, 0o600)
	}
	clear(content)
	if err != nil {
		return Provisioned{}, errors.Join(fail(ErrStorage, err, "the provisioning file was not written: %v", err), undo())
	}
	return made, nil
}

// promise makes the keys of a claim, puts the Base's part into the file, and stores the App's:
// a claim that no App has the keys of would be of no use.
func (a *App) promise(file *provisioning.File) (id string, err error) {
	static, err := noiseconn.GenerateStatic(a.random)
	if err != nil {
		return "", err
	}
	public, err := noiseconn.PublicOf(static)
	if err != nil {
		return "", err
	}
	signing, err := newSigningKey(a.random)
	if err != nil {
		return "", err
	}
	secret, err := noiseconn.GenerateClaimSecret(a.random)
	if err != nil {
		return "", err
	}
	until := a.now().Add(provisioning.ClaimTime).UTC().Truncate(time.Second)
	file.Claim = &provisioning.Claim{App: public, SigningKey: [32]byte(signing.Public().(ed25519.PublicKey)), Secret: secret, Until: until}
	name := file.Name
	if name == "" {
		name = "BitBox Base"
	}
	return public.AppID(), a.store.add(public.AppID(), &stored{
		Name: name, State: Unclaimed, BaseName: name, AppName: a.name, Role: basev1.Role_ROLE_OWNER, PairedAt: a.now().UTC().Round(0),
		Static: static.Expose(), Signing: signing.Seed(), Claim: &storedClaim{Secret: secret.Expose(), Until: until},
	})
}

// claim meets the Base of a claim, and becomes its owner. Several machines that announce the
// claim are refused before anything is revealed.
func (a *App) claim(ctx context.Context, p *pairing, given []string) (*pairing, error) {
	if !a.now().Before(p.claim.until) {
		return nil, fail(ErrPairAgain, nil, "the claim of the Base %q has expired on %s; if it was never used, write a new provisioning file",
			p.Name, p.claim.until.Format(time.DateOnly))
	}
	addresses, err := a.claimable(ctx, p, given)
	if err != nil {
		return nil, err
	}
	err = fail(ErrUnreachable, nil, "no Base on the local network waits for the claim of %q; check that it has started and is on this network, or give its address",
		p.Name)
	for _, address := range addresses {
		failed := a.claimAt(ctx, p, address)
		if failed == nil {
			return a.store.pairing(p.AppID)
		}
		err = worse(err, failed)
		if ctx.Err() != nil || errors.Is(failed, ErrInterference) {
			return nil, failed
		}
	}
	// Another process of this App may have been first.
	if now, stored := a.store.pairing(p.AppID); stored == nil && now.State != p.State {
		return now, nil
	}
	return nil, err
}

// claimable are the addresses at which a Base may wait for the claim.
func (a *App) claimable(ctx context.Context, p *pairing, given []string) ([]string, error) {
	if len(given) > 0 || a.noDiscovery {
		return given, nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.timing.discover)
	defer cancel()
	own := func(txt announcement.TXT) bool {
		return noiseconn.DiscoveryID(p.claim.discovery, txt.Nonce[:]) == txt.ID
	}
	found, err := discovery.Browse(ctx, discovery.BrowseOptions{Own: own})
	if err != nil {
		return nil, fail(ErrUnreachable, err, "the App cannot search the local network for the Base %q (%v); give its address", p.Name, err)
	}
	var addresses []string
	boards := map[[announcement.NonceSize]byte]string{}
	for f := range found {
		if !own(f.TXT) {
			continue
		}
		for _, address := range interleave(f.Addrs) {
			if !slices.Contains(addresses, address.String()) {
				addresses = append(addresses, address.String())
			}
			boards[f.Nonce] = address.String()
		}
	}
	if len(boards) > 1 {
		return nil, failSecondBoard(p, list(addresses))
	}
	return addresses, nil
}

// claimAt claims the Base at one address.
func (a *App) claimAt(ctx context.Context, p *pairing, address string) error {
	conn, handshake, p2, err := a.sendClaim(ctx, p, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, a.timing.ceremony)
	defer cancel()
	defer cutOff(ctx, conn)()
	commitment, err := handshake.ReadP2(p2)
	if err != nil {
		return fail(ErrNotABase, err, "the answer of %s to the claim does not fit (%v)", address, err)
	}
	signing, err := a.store.claimKey(p.AppID)
	if err != nil {
		return err
	}
	reveal := noiseconn.P3Payload{SigningKey: signing.Public().(ed25519.PublicKey), Name: p.AppName}
	if _, err := io.ReadFull(a.random, reveal.RA[:]); err != nil {
		return fmt.Errorf("read random bytes for a claim: %w", err)
	}
	p3, transport, err := handshake.WriteP3(&reveal)
	if err != nil {
		return err
	}
	record, err := a.afterReveal(ctx, conn, p3, transport, commitment, &reveal, signing, PairOptions{claim: p.claim})
	if err != nil {
		return fail(ErrInterference, err, "the machine at %s did not show that it is the Base %q (%v); nothing was stored; "+
			"if this happens again, somebody may have interfered", address, p.Name, reason(err))
	}
	return a.store.change(p.AppID, "store the Base that was claimed", func(r *stored) {
		if r.State == Unclaimed || r.State == Pending {
			r.State, r.BaseKey, r.StateKey, r.BaseName, r.PairedAt = Pending, record.BaseKey, record.StateKey, record.BaseName, record.PairedAt
			r.Pair, r.Discovery, r.Addresses = record.Pair, record.Discovery, []string{address}
		}
	})
}

// sendClaim sends a claim with a fresh P1, and returns the answer.
func (a *App) sendClaim(ctx context.Context, p *pairing, address string) (net.Conn, *noiseconn.PairInitiator, []byte, error) {
	handshake, err := noiseconn.NewPairInitiator(a.random, p.static)
	if err != nil {
		return nil, nil, nil, err
	}
	signing, err := a.store.claimKey(p.AppID)
	if err != nil {
		return nil, nil, nil, err
	}
	mark, err := noiseconn.ClaimMark(p.claim.secret, signing, handshake.P1())
	if err != nil {
		return nil, nil, nil, err
	}
	conn, err := a.dialAny(ctx, []string{address})
	if err != nil {
		return nil, nil, nil, err
	}
	defer cutOff(ctx, conn)()
	p2, err := exchange(conn, noiseconn.TypeClaim, append(mark, handshake.P1()...), noiseconn.P2Size, a.timing.handshake)
	if err != nil {
		conn.Close()
		return nil, nil, nil, err
	}
	return conn, handshake, p2, nil
}

// isSecondBoard finds out whether what is silent at an address still waits for the claim: the
// Base that this App has claimed does not.
func (a *App) isSecondBoard(ctx context.Context, p *pairing, address string) bool {
	conn, _, _, err := a.sendClaim(ctx, p, address)
	if err != nil {
		return false
	}
	_ = conn.Close() // nothing is revealed to it
	return true
}

func failSecondBoard(p *pairing, address string) error {
	return fail(ErrSecondBoard, nil, "at %s a second board answers to the claim of the Base %q; if you gave two boards the same provisioning file, write one for each, "+
		"and if not, somebody has a copy of the file and one of the two is theirs: order a factory reset at your board, and provision it again",
		address, p.Name)
}
