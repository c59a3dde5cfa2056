// Package sshkey parses SSH public keys: for the App before it sends one, for the posture that
// lists them, and for the builder of an image. A key is a plain key of an accepted type, without
// options. Keys that are written elsewhere are rendered from the parsed key, never copied from
// the input.
package sshkey

import (
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	// MaxLineSize is the longest accepted line of a public key, in bytes. An
	// RSA key of 16,384 bits takes 2,800.
	MaxLineSize = 8192
	// MaxCommentSize is the longest accepted comment of a key, in bytes.
	MaxCommentSize = 128
	// MinRSABits is the smallest accepted RSA modulus: what NIST SP 800-57
	// part 1 gives for 128 bits of security. sshd's RequiredRSASize says the same.
	MinRSABits = 3072
	// MaxRSABits is the largest modulus that OpenSSH accepts.
	MaxRSABits = 16384
)

// Types are the accepted types of a key, best first. DSA is missing because
// it is broken at its only size, certificates because they move the decision
// who may log in to a key that is not in the list.
var Types = []string{
	ssh.KeyAlgoSKED25519,
	ssh.KeyAlgoED25519,
	ssh.KeyAlgoSKECDSA256,
	ssh.KeyAlgoECDSA256,
	ssh.KeyAlgoECDSA384,
	ssh.KeyAlgoECDSA521,
	ssh.KeyAlgoRSA,
}

// ErrKey is what every error of Parse wraps.
var ErrKey = reason.New("not an acceptable SSH public key")

// Key is one public key that may log in.
type Key struct {
	// Type is one of Types.
	Type string
	// Fingerprint is the SHA-256 fingerprint as `ssh-keygen -l` prints it.
	Fingerprint string
	// Comment is what its owner wrote after the key; it may be empty. It has
	// no control and no invisible characters, so it is safe to show.
	Comment string
	// Line is the key as it is written to authorized_keys: type, base64 and
	// comment, without a line break. It is written from the parsed key.
	Line string
}

// Parse reads the one line of a public key file (id_ed25519.pub). A single
// line break at its end is accepted because files have one.
//
// A line of authorized_keys can do more than name a key: options run commands
// and set the environment, a second line is a second key, and a certificate
// authority lets in keys that nobody listed. All of that is refused, and what
// is returned in Key.Line is made from the parsed key, never from the input.
func Parse(line string) (Key, error) {
	if len(line) > MaxLineSize {
		return Key{}, refuse("it is %d bytes long; at most %d are allowed", len(line), MaxLineSize)
	}
	line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	if !utf8.ValidString(line) {
		return Key{}, refuse("it is not valid UTF-8")
	}
	for _, r := range line {
		switch {
		case r == '\n', r == '\r':
			return Key{}, refuse("it has more than one line; give one key at a time")
		case unicode.IsControl(r):
			return Key{}, refuse("it contains the control character %U", r)
		case r != ' ' && (!unicode.IsPrint(r) || unicode.Is(unicode.Cf, r)):
			return Key{}, refuse("it contains the invisible character %U", r)
		}
	}
	keyType, rest, _ := strings.Cut(line, " ")
	if !slices.Contains(Types, keyType) {
		return Key{}, refuse("%s", typeRefusal(keyType))
	}
	encoded, comment, _ := strings.Cut(rest, " ")
	comment = strings.TrimSpace(comment)
	if len(comment) > MaxCommentSize {
		return Key{}, refuse("its comment is %d bytes long; at most %d are allowed", len(comment), MaxCommentSize)
	}
	blob, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return Key{}, refuse("its second field is not base64: %v", err)
	}
	public, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return Key{}, refuse("its second field is not a public key: %v", err)
	}
	if public.Type() != keyType {
		return Key{}, refuse("it says %s, but the key inside is %s", keyType, public.Type())
	}
	if err := checkRSA(public); err != nil {
		return Key{}, err
	}
	canonical := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))
	if comment != "" {
		canonical += " " + comment
	}
	return Key{Type: keyType, Fingerprint: ssh.FingerprintSHA256(public), Comment: comment, Line: canonical}, nil
}

// Of returns the key of a wire format (RFC 4253, section 6.6), such as a host key, with
// a comment.
func Of(blob []byte, comment string) (Key, error) {
	public, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return Key{}, refuse("it is not a public key: %v", err)
	}
	return Parse(strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public))) + " " + comment)
}

func checkRSA(public ssh.PublicKey) error {
	if public.Type() != ssh.KeyAlgoRSA {
		return nil
	}
	holder, ok := public.(ssh.CryptoPublicKey)
	if !ok {
		return refuse("its RSA modulus cannot be read")
	}
	key, ok := holder.CryptoPublicKey().(*rsa.PublicKey)
	if !ok {
		return refuse("its RSA modulus cannot be read")
	}
	if bits := key.N.BitLen(); bits < MinRSABits || bits > MaxRSABits {
		return refuse("its RSA modulus has %d bits; %d to %d are allowed (better: ssh-keygen -t ed25519)", bits, MinRSABits, MaxRSABits)
	}
	return nil
}

// typeDSA is the one of RFC 4253, section 6.6.
const typeDSA = "ssh-dss"

// typeRefusal explains why a line may not begin with word.
func typeRefusal(word string) string {
	allowed := "allowed are " + strings.Join(Types, ", ")
	switch {
	case word == "":
		return "it is empty or begins with a space; " + allowed
	case word == typeDSA:
		return "DSA keys are too weak; " + allowed
	case strings.Contains(word, "-cert-v01@"):
		return "certificates are not accepted; give the plain public key"
	case strings.HasPrefix(word, "-----BEGIN"):
		return "this is a private key or another format; give the one line of the .pub file and keep the private key to yourself"
	case strings.HasPrefix(word, "#"):
		return "this is a comment line; give the key itself"
	case len(word) > 64:
		return "its first field is not the type of a key; " + allowed
	default:
		return fmt.Sprintf("it begins with %q, which is not the type of a key (options are not accepted); %s", word, allowed)
	}
}

func refuse(format string, args ...any) error {
	return reason.Errorf("%w: %s", ErrKey, fmt.Sprintf(format, args...))
}
