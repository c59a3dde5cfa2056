//go:build linux && image

package image_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// The image as it is shipped, with a file that its owner's App has put on the EFI partition: the App claims the Base, his SSH
// key lets him in from the first boot until the next one, and there is no way in but these two.
func TestTheImageTakesWhatItsOwnerHasPutOnTheDisk(t *testing.T) {
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
	m := shipped(t)
	m.host("mcopy", "-i", m.esp(), given.File, "::/"+bootdisk.ProvisionFile)
	a := m.Attacker(1)
	way := a.Way(t, netip.AddrPortFrom(m.V4, posture.EntryPort)).Address
	m.switchOn()
	m.answers(a)
	m.worksAt(app, way, "that has claimed it")
	m.until("the owner can log in from the first boot on", func() error {
		out, err := m.logIn(a, login, "findmnt -no OPTIONS /")
		if err == nil && !strings.HasPrefix(out, "ro,") {
			err = fmt.Errorf("there answers %q", out)
		}
		return err
	})

	m.cutPower()
	if files := m.host("mdir", "-b", "-i", m.esp(), "::"); strings.Contains(files, bootdisk.ProvisionFile) {
		t.Errorf("the file is still there: %s", files)
	}
	m.switchOn()
	m.worksAt(app, way, "after a power cut")
	m.until("SSH has ended with the first boot", func() error {
		conn, err := a.Dial("tcp", netip.AddrPortFrom(m.V4, sshaccess.Port))
		if err != nil {
			return nil
		}
		return fmt.Errorf("it answers: %w", conn.Close())
	})
}

// A file that was damaged on its way, then a good one, then one that comes too late, on the EFI partition of a machine.
func TestTheImageStaysClosedWithABadFileTakesAGoodOneAndIgnoresALateOne(t *testing.T) {
	write := func(name string) (*client.App, []byte) {
		t.Helper()
		app, err := client.New(client.Options{Dir: t.TempDir(), Name: "builder", NoDiscovery: true})
		if err != nil {
			t.Fatal(err)
		}
		given, err := app.Provision(t.TempDir(), client.ProvisionOptions{Name: name, NoDisplay: true, Pair: true})
		if err != nil {
			t.Fatal(client.Explain(err))
		}
		content, err := os.ReadFile(given.File)
		if err != nil {
			t.Fatal(err)
		}
		return app, content
	}
	owner, good := write("cellar")
	thief, late := write("mallory")
	m := probed(t)
	a := m.Attacker(1)
	way := a.Way(t, netip.AddrPortFrom(m.V4, posture.EntryPort)).Address
	// start puts a file on the EFI partition, as any computer can, and starts the machine.
	start := func(content []byte) {
		t.Helper()
		m.cutPower()
		file := filepath.Join(m.directory, "file")
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		m.host("mcopy", "-o", "-i", m.esp(), file, "::/"+bootdisk.ProvisionFile)
		m.switchOn()
	}
	journal := "journalctl --boot --no-pager --output=cat --unit=bitbox-base-provision.service"

	start(bytes.Replace(good, []byte("name cellar"), []byte("name mellar"), 1))
	m.reach()
	m.until("the file is refused", func() error {
		out, _, err := m.ask(asked, journal)
		if err == nil && !(strings.Contains(out, "damaged") && strings.Contains(out, "stays closed")) {
			err = fmt.Errorf("the log says %q", out)
		}
		return err
	})
	m.closed(a)
	if out := m.inside("ls /var/lib/bitbox-base/system"); strings.Contains(out, "system.db") {
		t.Errorf("with a bad file the Base has %s", out)
	}

	start(good)
	m.worksAt(owner, way, "that has claimed it with a good file in its place")

	start(late)
	m.worksAt(owner, way, "after a file that came too late")
	m.reach()
	if out := m.inside(journal); !strings.Contains(out, "too late") {
		t.Errorf("of the late file the log says %q", out)
	}
	if err := call(thief, way); !errors.Is(err, client.ErrSilent) {
		t.Errorf("the App of the late file is told %v", err)
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
