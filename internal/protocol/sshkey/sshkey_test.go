package sshkey_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
	"golang.org/x/crypto/ssh"
)

// The key and fingerprint were made with ssh-keygen, so that the fingerprint
// is compared with another implementation's.
const (
	ed25519Line        = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDvpxXGDAu0w+FUDIb/ygcy6q1chR7o1fzWvDDnfwJSA alice@laptop"
	ed25519Fingerprint = "SHA256:IIWbFbDZMxdwAOSyNNGf6/UXaDx79IRo6wTzr5oEUes"
)

func line(t *testing.T, public any) string {
	t.Helper()
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

func TestPlainKeysAreAccepted(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsa3072, err := rsa.GenerateKey(rand.Reader, sshkey.MinRSABits)
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range []string{
		ed25519Line,
		ed25519Line + "\n",
		ed25519Line + "\r\n",
		line(t, &p384.PublicKey),
		line(t, &rsa3072.PublicKey) + " Zoë's key, with spaces",
	} {
		key, err := sshkey.Parse(in)
		if err != nil {
			t.Errorf("Parse(%q): %v", in, err)
			continue
		}
		if want := strings.TrimSpace(in); key.Line != want {
			t.Errorf("Line = %q, want %q", key.Line, want)
		}
		again, err := sshkey.Parse(key.Line)
		if err != nil || again != key {
			t.Errorf("a parsed line parses to something else: %+v, %v", again, err)
		}
	}
	key, err := sshkey.Parse(ed25519Line)
	if err != nil {
		t.Fatal(err)
	}
	if key.Fingerprint != ed25519Fingerprint || key.Comment != "alice@laptop" || key.Type != "ssh-ed25519" {
		t.Errorf("Parse = %+v", key)
	}
}

func TestAnythingButAPlainKeyIsRefused(t *testing.T) {
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certificate := &ssh.Certificate{Key: signer.PublicKey(), CertType: ssh.UserCert, ValidPrincipals: []string{"base"},
		ValidBefore: ssh.CertTimeInfinity}
	if err := certificate.SignCert(rand.Reader, signer); err != nil {
		t.Fatal(err)
	}
	dsa := "ssh-dss " + base64.StdEncoding.EncodeToString([]byte("\x00\x00\x00\x07ssh-dss"))
	_, encoded, _ := strings.Cut(ed25519Line, " ")

	for name, c := range map[string]struct{ line, reason string }{
		"empty":               {"", "empty"},
		"command option":      {`command="/bin/sh" ` + ed25519Line, "options"},
		"environment option":  {`environment="LD_PRELOAD=/tmp/x" ` + ed25519Line, "options"},
		"cert-authority":      {"cert-authority " + ed25519Line, "options"},
		"option list":         {"no-pty,restrict " + ed25519Line, "options"},
		"second line":         {ed25519Line + "\n" + ed25519Line, "more than one line"},
		"second line, CR":     {ed25519Line + "\r" + ed25519Line, "more than one line"},
		"two final breaks":    {ed25519Line + "\n\n", "more than one line"},
		"short RSA":           {line(t, &rsa2048.PublicKey), "2048 bits"},
		"DSA":                 {dsa, "DSA"},
		"certificate":         {strings.TrimSpace(string(ssh.MarshalAuthorizedKey(certificate))), "certificates"},
		"certificate in type": {"ssh-ed25519 " + base64.StdEncoding.EncodeToString(certificate.Marshal()), "the key inside is"},
		"wrong type":          {"ecdsa-sha2-nistp256 " + encoded, "the key inside is"},
		"NUL":                 {ed25519Line + "\x00", "control character"},
		"escape":              {ed25519Line + " \x1b[2J", "control character"},
		"tab":                 {strings.Replace(ed25519Line, " ", "\t", 1), "control character"},
		"right-to-left":       {ed25519Line + " \u202egnp", "invisible character"},
		"zero width":          {ed25519Line + "\u200b", "invisible character"},
		"not UTF-8":           {ed25519Line + "\xff", "UTF-8"},
		"comment line":        {"# " + ed25519Line, "comment line"},
		"private key":         {"-----BEGIN OPENSSH PRIVATE KEY-----", "private key"},
		"no key":              {"ssh-ed25519", "not a public key"},
		"not base64":          {"ssh-ed25519 !!!!", "base64"},
		"long":                {ed25519Line + strings.Repeat("x", sshkey.MaxLineSize), "at most"},
		"long comment":        {ed25519Line + strings.Repeat("x", sshkey.MaxCommentSize), "comment"},
		"leading space":       {" " + ed25519Line, "begins with a space"},
		"trailing bytes":      {"ssh-ed25519 " + base64.StdEncoding.EncodeToString(append(signer.PublicKey().Marshal(), 0)), "not a public key"},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := sshkey.Parse(c.line)
			if !errors.Is(err, sshkey.ErrKey) || !strings.Contains(err.Error(), c.reason) {
				t.Fatalf("Parse = %+v, %v; want a refusal that says %q", key, err, c.reason)
			}
		})
	}
}

// Each accepted key is one line, which ssh's own parser reads as the same key
// without options.
func FuzzParseKey(f *testing.F) {
	f.Add(ed25519Line)
	f.Add("command=\"x\" " + ed25519Line)
	f.Fuzz(func(t *testing.T, in string) {
		key, err := sshkey.Parse(in)
		if err != nil {
			return
		}
		public, comment, options, rest, err := ssh.ParseAuthorizedKey([]byte(key.Line))
		if err != nil || len(options) != 0 || len(rest) != 0 || strings.ContainsAny(key.Line, "\n\r\x00") ||
			comment != key.Comment || ssh.FingerprintSHA256(public) != key.Fingerprint || public.Type() != key.Type {
			t.Fatalf("Parse(%q) = %+v; read back as %v %q %v", in, key, public, comment, options)
		}
	})
}
