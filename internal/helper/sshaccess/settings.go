package sshaccess

import (
	"bufio"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"golang.org/x/crypto/ssh"
)

// Config is what differs between one sshd_config and another.
type Config struct {
	// HostKey is the path of the Base's Ed25519 host key. It is the only one: a client that also
	// knew an RSA key could be tricked into the weaker one.
	HostKey string
	// AuthorizedKeys is the path of the file of RenderAuthorizedKeys. It belongs to root and is
	// outside homes, so that SSH users cannot add keys.
	AuthorizedKeys string
}

// Setting is one line of sshd_config.
type Setting struct {
	Keyword string
	Value   string
	// Why says what would be wrong without it; it becomes a comment.
	Why string
}

// loginAlgorithms are the signatures of the [sshkey.Types]. The type ssh-rsa signs only with
// SHA-2.
var loginAlgorithms = func() []string {
	algorithms := slices.Clone(sshkey.Types[:len(sshkey.Types)-1])
	return append(algorithms, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
}()

// keyExchanges are offered in this order. The last is for clients from before OpenSSH 9.0.
var keyExchanges = []string{
	ssh.KeyExchangeMLKEM768X25519, "sntrup761x25519-sha512", "sntrup761x25519-sha512@openssh.com", ssh.KeyExchangeCurve25519,
}

// penalties are how many seconds sshd refuses an address after an offence, as `sshd -T` prints
// them. Only a crash counts, which fail2ban does not see. Whatever an owner's own programs
// could do (old keys, checking whether the port is there) is left to fail2ban: its bans are seen and
// lifted in the App, and sshd's refusals would keep it from counting.
const penalties = "crash:600 authfail:0 noauth:0 grace-exceeded:0 refuseconnection:0 max:600 min:15 max-sources4:65536 " +
	"max-sources6:65536 overflow:permissive overflow6:permissive"

// Settings is the one table of sshd's settings. Each line is rendered, and each is compared with
// `sshd -T`, which prints what is in force.
func Settings(c Config) []Setting {
	return []Setting{
		{"Port", strconv.Itoa(Port), "The packet filter opens it only while SSH is leased."},
		{"HostKey", c.HostKey, "Ed25519 alone."},

		{"AuthenticationMethods", "publickey", "Keys are the only way in; every other way is also switched off."},
		{"PubkeyAuthentication", "yes", ""},
		{"PasswordAuthentication", "no", ""},
		{"KbdInteractiveAuthentication", "no", ""},
		{"PermitEmptyPasswords", "no", ""},
		{"HostbasedAuthentication", "no", ""},
		{"GSSAPIAuthentication", "no", ""},
		{"KerberosAuthentication", "no", ""},
		{"UsePAM", "no", "PAM could move a session out of this unit, where the end of the lease would not reach it."},
		{"PermitRootLogin", "no", "One user, without any privilege."},
		{"AllowUsers", User, ""},
		{"AuthorizedKeysFile", c.AuthorizedKeys, "Root's file, outside homes: a user who is logged in cannot add a key."},
		{"AuthorizedKeysCommand", "none", ""},
		{"AuthorizedKeysCommandUser", "nobody", ""}, // without one, sshd complains at each login
		{"AuthorizedPrincipalsFile", "none", ""},
		{"TrustedUserCAKeys", "none", "No authority may let in keys that are not in the file."},
		{"StrictModes", "yes", ""},
		{"RequiredRSASize", strconv.Itoa(sshkey.MinRSABits),
			"internal/protocol/sshkey decides which keys are accepted; sshd checks them again."},
		{"PubkeyAcceptedAlgorithms", strings.Join(loginAlgorithms, ","), ""},

		{"LoginGraceTime", "20", "Strangers get little time and few attempts; fail2ban bans them."},
		{"MaxAuthTries", "6", "A client offers each of its keys as one try."},
		{"MaxStartups", "10:30:20", ""},
		{"PerSourceMaxStartups", "3", ""},
		{"PerSourceNetBlockSize", "32:64", "A host has a whole /64."},
		{"PerSourcePenalties", penalties,
			"A client that crashes sshd waits ten minutes before the next try. Failures are for fail2ban."},
		{"MaxSessions", "4", ""},
		{"LogLevel", "VERBOSE", "Logs the fingerprint of the key that logged in, and failures early enough for fail2ban."},

		{"DisableForwarding", "yes", "Only a login: no tunnel into the network behind the packet filter."},
		{"AllowTcpForwarding", "no", ""},
		{"AllowStreamLocalForwarding", "no", ""},
		{"AllowAgentForwarding", "no", ""},
		{"GatewayPorts", "no", ""},
		{"X11Forwarding", "no", ""},
		{"PermitTunnel", "no", ""},
		{"PermitUserEnvironment", "no", "No file in a home may run a program or set a variable."},
		{"PermitUserRC", "no", ""},

		{"KexAlgorithms", strings.Join(keyExchanges, ","), "Hybrids with ML-KEM or NTRU Prime come first: no quantum computer reads them later."},
		{"Ciphers", "chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes128-gcm@openssh.com", ""},
		{"MACs", "hmac-sha2-512-etm@openssh.com,hmac-sha2-256-etm@openssh.com", ""},
		{"HostKeyAlgorithms", ssh.KeyAlgoED25519, ""},

		{"UnusedConnectionTimeout", "60", "A connection without a session is of no use."},
		{"ClientAliveInterval", "60", "A client that has vanished is noticed."},
		{"ClientAliveCountMax", "3", ""},
		{"UseDNS", "no", "The log shows addresses, because bans need them."},
		{"VersionAddendum", "none", ""},
		{"Compression", "no", ""},
		{"PrintMotd", "no", ""},
		{"PidFile", "none", ""},
	}
}

// unwelcome are keywords of `sshd -T` that appear only if something set them: a file transfer
// service, and variables chosen by a client.
var unwelcome = []string{"subsystem", "acceptenv", "setenv", "match"}

// RenderConfig writes sshd_config. It is complete and includes no other file, so no other file
// can loosen it.
func RenderConfig(c Config) (string, error) {
	if err := c.check(); err != nil {
		return "", err
	}
	b := &strings.Builder{}
	b.WriteString("# Rendered by bitbox-base; changes are found by the audit and undone.\n")
	for _, s := range Settings(c) {
		if s.Why != "" {
			fmt.Fprintf(b, "\n# %s\n", s.Why)
		}
		fmt.Fprintf(b, "%s %s\n", s.Keyword, s.Value)
	}
	// This is Debian's own keyword; `sshd -T` does not print it.
	b.WriteString("DebianBanner no\n")
	return b.String(), nil
}

func (c Config) check() error {
	for name, path := range map[string]string{"HostKey": c.HostKey, "AuthorizedKeys": c.AuthorizedKeys} {
		if !filepath.IsAbs(path) || strings.ContainsAny(path, " \t\r\n\"'#%\\~") {
			return reason.Errorf("render sshd_config: %s is %q; it must be an absolute path without blanks and special characters", name, path)
		}
	}
	return nil
}

// RenderAuthorizedKeys writes the file of the keys that may log in, in the given order. Without
// keys nobody can log in.
func RenderAuthorizedKeys(keys []sshkey.Key) string {
	b := &strings.Builder{}
	b.WriteString("# Rendered by bitbox-base; changes are found by the audit and undone.\n")
	for _, key := range keys {
		b.WriteString(key.Line)
		b.WriteByte('\n')
	}
	return b.String()
}

// Mismatch is a setting that is not in force.
type Mismatch struct {
	// Keyword is in lower case, as `sshd -T` prints it.
	Keyword string
	// Want is empty if the keyword should not be there.
	Want string
	// Got is what is in force instead; empty if nothing is.
	Got string
}

func (m Mismatch) String() string {
	return fmt.Sprintf("sshd: %s is %q, not %q", m.Keyword, m.Got, m.Want)
}

// Verify compares the output of `sshd -T -C user=base,…` with Settings.
func Verify(effective string, c Config) ([]Mismatch, error) {
	got := map[string][]string{}
	lines := bufio.NewScanner(strings.NewReader(effective))
	for lines.Scan() {
		keyword, value, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		if keyword != "" {
			keyword = strings.ToLower(keyword)
			got[keyword] = append(got[keyword], value)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, reason.Errorf("read the output of sshd -T: %w", err)
	}
	if len(got) == 0 {
		return nil, reason.Errorf("read the output of sshd -T: it is empty; does sshd -t complain?")
	}
	var mismatches []Mismatch
	for _, s := range Settings(c) {
		keyword := strings.ToLower(s.Keyword)
		// If a keyword occurs twice, its second value counts, too.
		if values := got[keyword]; len(values) != 1 || !strings.EqualFold(values[0], s.Value) {
			mismatches = append(mismatches, Mismatch{Keyword: keyword, Want: s.Value, Got: strings.Join(values, ", ")})
		}
	}
	for _, keyword := range unwelcome {
		if values := got[keyword]; len(values) > 0 {
			mismatches = append(mismatches, Mismatch{Keyword: keyword, Got: strings.Join(values, ", ")})
		}
	}
	return mismatches, nil
}
