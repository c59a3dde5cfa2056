// Package provisioning defines the file by which an owner tells a new Base what it is: its name,
// who may log in by SSH, whether it has a display, and which App becomes its owner.
//
// Any computer can write the file to the EFI partition of the image. The Base reads it once, at
// its first boot (internal/helper/provision). The file is text that a person can read. There is
// one way to write each content: [Parse] accepts what [File.Marshal] writes, and nothing else.
//
//	bitbox-base provisioning 1
//	# comment, always the same
//	name Cellar
//	ssh-key ssh-ed25519 AAAA… anna     at most 16
//	ssh-lease 1h0m0s
//	display none
//	claim-app …                        64 hexadecimal digits, like the next two
//	claim-signing-key …
//	claim-secret …
//	claim-until 2026-12-28T09:00:00Z
//	end …                              SHA-256 of all before
//
// Each line but the first and the last may be missing; the four of a claim go together. Another
// version has another number. Settings of Wi-Fi will be in version 2.
package provisioning

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/publickey"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// MaxSize is the longest file that is made and parsed, in bytes: room for 16 SSH keys, each of the
// longest that people have (RSA with 16384 bits takes 2.8 KiB).
const MaxSize = 48 << 10

// ClaimTime is how long a claim can be used, from the day on which it was made.
const ClaimTime = 90 * 24 * time.Hour

const (
	magic   = "bitbox-base provisioning "
	version = magic + "1\n"
	comment = "# What a new Base is told at its first boot. Made by 'bitbox-app provision'; a change by hand is refused.\n"

	keyName    = "name"
	keySSHKey  = "ssh-key"
	keyLease   = "ssh-lease"
	keyDisplay = "display"
	keyApp     = "claim-app"
	keySigning = "claim-signing-key"
	keySecret  = "claim-secret"
	keyUntil   = "claim-until"
	keyEnd     = "end"

	// NoDisplay is the one value of display.
	NoDisplay = "none"
)

// File is what an owner chooses.
type File struct {
	// Name of the Base; empty: as it comes.
	Name    string
	SSHKeys []sshkey.Key
	// SSHLease is how long SSH is on from the first boot on; 0: it is off.
	SSHLease time.Duration
	// NoDisplay: nobody can stand before the Base and compare a code. An owner's App accepts
	// and answers pairings in that person's place.
	NoDisplay bool
	// Claim names the App that becomes the owner; nil: a person at the Base decides.
	Claim *Claim
}

// Claim is what the Base gets of a claim (docs/claim.md). It holds no private key.
type Claim struct {
	App        noiseconn.PublicKey
	SigningKey [ed25519.PublicKeySize]byte
	Secret     noiseconn.ClaimSecret
	// Until is when the claim expires, in whole seconds of UTC.
	Until time.Time
}

// ErrFile is what every error of Parse wraps.
var ErrFile = reason.New("this is no provisioning file that can be used")

// Factory is the posture of a new Base: revision 0.
func (f File) Factory() posture.Posture {
	factory := posture.Factory()
	if f.Name != "" {
		factory.NodeName = f.Name
	}
	factory.SSHKeys = f.SSHKeys
	return factory
}

// Check tells whether a Base can be made as the file says.
func (f File) Check() error {
	if f.Name != "" {
		if err := noiseconn.CheckName(f.Name); err != nil {
			return reason.Errorf("the name of the Base: %w", err)
		}
	}
	switch {
	case f.SSHLease == 0:
	case len(f.SSHKeys) == 0:
		return reason.New("SSH from the first boot on needs a key that may log in; give a public key too")
	case f.SSHLease < posture.MinLease || f.SSHLease > posture.MaxLease || f.SSHLease%time.Second != 0:
		return reason.Errorf("SSH from the first boot on can last %v to %v, in whole seconds, not %v", posture.MinLease, posture.MaxLease,
			f.SSHLease)
	}
	if c := f.Claim; c != nil {
		if err := publickey.CheckSigning(c.SigningKey[:]); err != nil {
			return reason.Errorf("the signing key of the App: %w", err)
		}
		if _, err := noiseconn.ParsePublicKey(c.App[:]); err != nil || c.App == (noiseconn.PublicKey{}) {
			return reason.New("the public key of the App is none")
		}
		if c.Secret.Empty() {
			return reason.New("the secret of the claim is missing")
		}
	}
	return f.Factory().Validate()
}

// Marshal returns the file's content. With a claim it holds its secret.
func (f File) Marshal() ([]byte, error) {
	if err := f.Check(); err != nil {
		return nil, reason.Errorf("make a provisioning file: %w", err)
	}
	b := bytes.NewBufferString(version + comment)
	line := func(key, value string) { fmt.Fprintf(b, "%s %s\n", key, value) }
	if f.Name != "" {
		line(keyName, f.Name)
	}
	for _, key := range f.SSHKeys {
		line(keySSHKey, key.Line)
	}
	if f.SSHLease != 0 {
		line(keyLease, f.SSHLease.String())
	}
	if f.NoDisplay {
		line(keyDisplay, NoDisplay)
	}
	if c := f.Claim; c != nil {
		line(keyApp, c.App.String())
		line(keySigning, hex.EncodeToString(c.SigningKey[:]))
		line(keySecret, hex.EncodeToString(c.Secret.Expose()))
		line(keyUntil, c.Until.UTC().Format(time.RFC3339))
	}
	digest := sha256.Sum256(b.Bytes())
	line(keyEnd, hex.EncodeToString(digest[:]))
	if b.Len() > MaxSize {
		return nil, reason.Errorf("make a provisioning file: it has %d bytes, and a Base reads %d", b.Len(), MaxSize)
	}
	return b.Bytes(), nil
}

// Parse reads a file. Nothing of a private key that somebody has put into it is shown.
func Parse(content []byte) (File, error) {
	f, err := parse(content)
	if err != nil {
		return File{}, reason.Errorf("%w: %w", ErrFile, err)
	}
	return f, nil
}

func parse(content []byte) (f File, err error) {
	switch text := string(content[:min(len(content), MaxSize)]); {
	case sshkey.HoldsPrivate(text):
		return f, reason.New("a PRIVATE SSH key is in it, which must not leave your computer; make a new one, with the public key")
	case len(content) > MaxSize:
		return f, reason.Errorf("it is larger than %d bytes", MaxSize)
	case strings.HasPrefix(text, magic) && !strings.HasPrefix(text, version):
		return f, reason.New("it is of another version than this Base knows; make it with the App of the same release")
	case !strings.HasPrefix(text, version+comment):
		return f, reason.New("it does not begin as one; make it with 'bitbox-app provision'")
	}
	body, end, _ := bytes.Cut(content, []byte("\n"+keyEnd+" "))
	body = append(bytes.Clone(body), '\n')
	if digest := sha256.Sum256(body); string(end) != hex.EncodeToString(digest[:])+"\n" {
		return f, reason.New("it is damaged or was changed; make a new one")
	}
	var claim Claim
	for line := range strings.Lines(string(body[len(version+comment):])) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if err := f.set(&claim, key, value); err != nil {
			return f, err
		}
	}
	// A line in another order, a second time or in other words makes it no file of this version.
	again, err := f.Marshal()
	if err != nil {
		return f, err
	}
	if !bytes.Equal(again, content) {
		return f, reason.New("its lines are not as this version writes them; make a new one")
	}
	return f, nil
}

// set takes one line.
func (f *File) set(claim *Claim, key, value string) (err error) {
	switch key {
	case keyName:
		f.Name = value
	case keySSHKey:
		var k sshkey.Key
		if k, err = sshkey.Parse(value); err == nil {
			f.SSHKeys = append(f.SSHKeys, k)
		}
	case keyLease:
		f.SSHLease, err = time.ParseDuration(value)
	case keyDisplay:
		f.NoDisplay = true
	case keyApp:
		f.Claim = claim
		claim.App, err = parseKey(value, noiseconn.ParsePublicKey)
	case keySigning:
		claim.SigningKey, err = parseKey(value, func(b []byte) ([32]byte, error) { return [32]byte(b), nil })
	case keySecret:
		claim.Secret, err = parseKey(value, noiseconn.ParseClaimSecret)
	case keyUntil:
		claim.Until, err = time.Parse(time.RFC3339, value)
	default:
		return reason.New("it has a line that this version does not know; make it with the App of the same release")
	}
	if err != nil {
		return reason.Errorf("its line %q: %w", key, err)
	}
	return nil
}

func parseKey[T any](text string, parse func([]byte) (T, error)) (key T, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != noiseconn.KeySize {
		return key, reason.Errorf("it is not %d hexadecimal digits", 2*noiseconn.KeySize)
	}
	defer clear(b)
	return parse(b)
}
