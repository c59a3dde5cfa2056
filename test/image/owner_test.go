//go:build linux && image

package image_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/image/build"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// The image that its owner has made for himself, to the last byte: it knows his App and
// his SSH key, has SSH on for its first hours, and takes releases that he signs. There is
// no way in but these two.
func TestTheImageOfAnOwner(t *testing.T) {
	stage.NeedRoot(t)
	seed, err := release.GenerateSigningSeed()
	if err != nil {
		t.Fatal(err)
	}
	app, err := client.New(client.Options{Dir: t.TempDir(), Name: "builder", NoDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	login, key := newKey(t)
	given, err := app.Provision(t.TempDir(),
		client.ProvisionOptions{Name: "cellar", SSHKey: key, SSHLease: 2 * time.Hour, NoDisplay: true, Pair: true})
	if err != nil {
		t.Fatal(client.Explain(err))
	}
	m := newMachine(t, made(t, build.Options{
		Package:   packaged(t, seed, "1.0.0"),
		Provision: given.File,
	}))
	a := m.Attacker(1)
	way := a.Way(t, netip.AddrPortFrom(m.V4, posture.EntryPort)).Address
	m.switchOn()
	m.answers(a)
	m.worksAt(app, way, "that is built into it")
	m.until("the owner can log in from the first boot on", func() error {
		out, err := m.logIn(a, login, "cat /etc/hostname; findmnt -no OPTIONS /")
		if name, options, _ := strings.Cut(out, "\n"); err == nil && (name != "cellar" || !strings.HasPrefix(options, "ro,")) {
			err = fmt.Errorf("there answers %q", out)
		}
		return err
	})

	m.updates(app, way, seed, "1.1.0")
	if out, err := m.logIn(a, login, "dpkg-query --show --showformat='${Version}' bitbox-base; echo; cat /usr/lib/bitbox-base/version-of-the-test; findmnt -no OPTIONS /"); err != nil ||
		!strings.HasPrefix(out, "1.1.0\n1.1.0\n") || !strings.Contains(out, "\nro,") || strings.Contains(out, "\nrw,") {
		t.Errorf("after the update there answers %q: %v", out, err)
	}

	m.cutPower()
	m.switchOn()
	m.worksAt(app, way, "after a power cut")
	m.until("SSH has ended with the first boot", func() error {
		conn, err := a.Dial("tcp", netip.AddrPortFrom(m.V4, sshaccess.Port))
		if err != nil {
			return nil
		}
		return fmt.Errorf("it answers: %w", conn.Close())
	})
	if installed := m.installed(app, way); installed != "1.1.0" {
		t.Errorf("after a power cut version %s is installed", installed)
	}
}

// newKey returns an SSH key, and the file of its public half.
func newKey(t *testing.T) (ssh.Signer, string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	login, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "id.pub")
	if err := os.WriteFile(file, ssh.MarshalAuthorizedKey(login.PublicKey()), 0o600); err != nil {
		t.Fatal(err)
	}
	return login, file
}

// packaged makes a version of our package that takes releases of a key.
func packaged(t *testing.T, seed release.SigningSeed, version string) string {
	t.Helper()
	command := exec.Command("../../scripts/package", version, "amd64", t.TempDir())
	command.Env = append(os.Environ(), "RELEASE_KEY="+hex.EncodeToString(release.PublicKey(seed)))
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("make the package: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// logIn logs in by SSH, and runs a command.
func (m *machine) logIn(from *stage.Attacker, login ssh.Signer, command string) (string, error) {
	conn, err := from.Dial("tcp", netip.AddrPortFrom(m.V4, sshaccess.Port))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(asked)); err != nil {
		return "", err
	}
	c, channels, requests, err := ssh.NewClientConn(conn, "base", &ssh.ClientConfig{
		// a machine of this test
		User: sshaccess.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(login)}, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
	if err != nil {
		return "", err
	}
	client := ssh.NewClient(c, channels, requests)
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return "", err
	}
	out, err := session.CombinedOutput(command + "; true")
	return string(out), err
}

// updates has the App bring a newer version.
func (m *machine) updates(app *client.App, way string, seed release.SigningSeed, version string) {
	m.t.Helper()
	root := filepath.Join(m.t.TempDir(), "package")
	m.host("dpkg-deb", "--raw-extract", packaged(m.t, seed, version), root)
	if err := os.WriteFile(filepath.Join(root, "usr/lib/bitbox-base/version-of-the-test"), []byte(version+"\n"), 0o644); err != nil {
		m.t.Fatal(err)
	}
	deb, file := root+".deb", root+".release"
	m.host("dpkg-deb", "--root-owner-group", "-Zxz", "-z6", "--build", root, deb)
	content, err := os.ReadFile(deb)
	if err != nil {
		m.t.Fatal(err)
	}
	header, err := release.Sign(release.Header{Version: version, Architecture: "amd64", Size: uint64(len(content)),
		Hash: sha256.Sum256(content)}, seed)
	if err == nil {
		err = os.WriteFile(file, append(header, content...), 0o600)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	r, err := client.OpenRelease(file)
	if err != nil {
		m.t.Fatal(err)
	}
	defer r.Close()
	session, err := app.Open("", way)
	if err != nil {
		m.t.Fatal(err)
	}
	defer session.Close()
	ctx, cancel := context.WithTimeout(m.t.Context(), 2*patience)
	defer cancel()
	begun := time.Now()
	if err := session.Install(ctx, r, nil); err != nil {
		m.t.Fatalf("update the machine: %v", client.Explain(err))
	}
	m.t.Logf("FIGURE an update, in software: %.0f s", time.Since(begun).Seconds())
}

// installed is the version that the Base tells its App.
func (m *machine) installed(app *client.App, way string) (version string) {
	m.t.Helper()
	m.until("the Base tells its App which version it is", func() error {
		session, err := app.Open("", way)
		if err != nil {
			return err
		}
		defer session.Close()
		ctx, cancel := context.WithTimeout(m.t.Context(), 2*time.Minute)
		defer cancel()
		status, err := session.UpdateStatus(ctx)
		version = status.GetInstalledVersion()
		return err
	})
	return version
}
