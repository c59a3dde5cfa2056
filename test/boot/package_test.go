//go:build linux

package boot_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/provision"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/setup"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// install runs dpkg in the booted Debian.
func install(t *testing.T, s *stage.Stage, file string) (string, error) {
	return long(t, s, "dpkg", "--install", everywhere(file))
}

// ours lists the units of ours that are active.
func ours(s *stage.Stage) string {
	return strings.TrimSpace(s.MustExec("systemctl", "list-units", "--plain", "--no-legend", "--state=active,activating,reloading,failed",
		"bitbox-base-*"))
}

// active lists all services that are active, but for those that come and go.
func active(s *stage.Stage) []string {
	var units []string
	for line := range strings.Lines(s.MustExec("systemctl", "list-units", "--plain", "--no-legend", "--state=active",
		"--type=service,socket")) {
		name, _, _ := strings.Cut(line, " ")
		if !strings.HasPrefix(name, "apt-daily") && !strings.HasPrefix(name, "dpkg-db") && !strings.HasPrefix(name, "user") &&
			!strings.HasPrefix(name, "modprobe@") && !strings.HasPrefix(name, "e2scrub") {
			units = append(units, name)
		}
	}
	return unique(units)
}

// rules are both packet filters, without counters.
func rules(s *stage.Stage) string {
	var kept strings.Builder
	for _, program := range []string{"iptables-save", "ip6tables-save"} {
		for line := range strings.Lines(s.MustExec(program, "-t", "filter")) {
			line, _, _ = strings.Cut(line, " [")
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") {
				kept.WriteString(line + "\n")
			}
		}
	}
	return kept.String()
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// overSSH sets up as somebody would who came by SSH.
func overSSH(t *testing.T, s *stage.Stage) (string, error) {
	t.Helper()
	return long(t, s, "env", "SSH_CONNECTION=10.88.0.9 1 10.88.0.2 22", "bitbox-base", "setup", "--yes")
}

// same fails the test unless both are the same.
func same[T comparable](t *testing.T, what string, is, was []T) {
	t.Helper()
	if !slices.Equal(is, was) {
		t.Errorf("%s: there is\n%v\nand there was\n%v", what, is, was)
	}
}

// A Debian with servers of its own gets the package, becomes a Base, is upgraded,
// well and badly, and becomes what it was.
func TestThePackageTurnsADebianIntoABaseAndBack(t *testing.T) {
	t.Parallel()
	stage.NeedRoot(t, "nmap", "dpkg-deb")
	first, second := deb(t, oldVersion), deb(t, newVersion)
	failing := filepath.Join(t.TempDir(), "failing.deb")
	host(t, "cp", rebuilt(t, second, func(root string) {
		script := filepath.Join(root, "DEBIAN/postinst")
		text, err := os.ReadFile(script)
		if err == nil {
			// It fails, or hangs to be killed, while one of these is there.
			err = os.WriteFile(script, []byte(strings.Replace(string(text), "set -e\n",
				"set -e\nif [ -e /run/fail ]; then exit 1; fi\nwhile [ -e /run/hang ]; do touch /run/hanging; sleep 0.1; done\n", 1)), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}), failing)
	s := debian(t, nil, first, second, failing)
	stranger := s.Attacker(1)

	// As it was.
	stage.Until(t, "Debian's servers listen", func() error {
		// The resolver and Avahi are later than NGINX and sshd, and the order changes.
		l := strings.Join(listens(s), ", ")
		for _, port := range []string{"tcp [::]:80", "tcp [::]:22", "tcp [::]:5355", "udp [::]:5355", "udp [::]:5353", "udp [::]:(random)"} {
			if !strings.Contains(l, port) {
				return fmt.Errorf("there are %s", l)
			}
		}
		return nil
	})
	listened, wereActive, filters := listens(s), active(s), rules(s)
	t.Logf("a Debian with the servers we depend on listens at %q", listened)
	before := etc(s)

	t.Run("installing changes nothing", func(t *testing.T) {
		if out, err := install(t, s, first); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		same(t, "after the installation what listens", listens(s), listened)
		same(t, "after the installation what is active", active(s), wereActive)
		if units := ours(s); units != "" {
			t.Errorf("after the installation there run\n%s", units)
		}
		if rules(s) != filters {
			t.Errorf("the installation has changed the packet filter")
		}
		// Users, and nothing else.
		users := []string{"/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/.pwd.lock", "/etc/subuid", "/etc/subgid"}
		if found := changes(before, etc(s), append(users, "/etc\x00")...); len(found) > 1 || len(found) == 1 &&
			!strings.HasPrefix(found[0], "changed: /etc from") {
			t.Errorf("the installation has changed %q", found)
		}
		s.Reboot()
		stage.Until(t, "all listen as they did, after a reboot", func() error {
			if l := listens(s); !slices.Equal(l, listened) {
				return fmt.Errorf("there are %q", l)
			}
			return nil
		})
		if units := ours(s); units != "" {
			t.Errorf("after a reboot there run\n%s", units)
		}
	})
	installed := etc(s)
	untouched := func(t *testing.T, when string) {
		t.Helper()
		if found := changes(installed, etc(s), "/etc/shadow-"); len(found) > 0 {
			t.Errorf("%s there has changed in /etc: %q", when, found)
		}
		if rules(s) != filters {
			t.Errorf("%s the packet filter has changed to\n%s", when, rules(s))
		}
		stage.Until(t, "all listen as they did "+when, func() error {
			if l := listens(s); !slices.Equal(l, listened) {
				return fmt.Errorf("there are %q", l)
			}
			return nil
		})
		if units := ours(s); units != "" {
			t.Errorf("%s there run\n%s", when, units)
		}
	}

	t.Run("who does not say yes, or comes by SSH, changes nothing", func(t *testing.T) {
		for answer, argv := range map[string][]string{
			"nothing": {"bitbox-base", "setup"},
			"no\n":    {"bitbox-base", "setup"},
		} {
			out, err := s.ExecInput(strings.TrimPrefix(answer, "nothing"), argv...)
			if err == nil || !strings.Contains(out, "nothing was changed") || !strings.Contains(out, "stopped: ") {
				t.Errorf("to the answer %q setup says %v\n%s", answer, err, out)
			}
		}
		for name, argv := range map[string][]string{
			"the variable":        {"env", "SSH_CONNECTION=10.0.0.1 1 10.0.0.2 22", "bitbox-base", "setup", "--yes"},
			"the tree of parents": {"/run/sshd-test/sshd", "-c", "bitbox-base setup --yes; exit $?"},
		} {
			s.MustExec("mkdir", "-p", "/run/sshd-test")
			s.MustExec("cp", "/bin/dash", "/run/sshd-test/sshd")
			if out, err := s.Exec(argv...); err == nil || !strings.Contains(out, setup.ErrOverSSH.Error()) {
				t.Errorf("by SSH, known by %s, setup says %v\n%s", name, err, out)
			}
		}
		untouched(t, "after a no")
	})

	t.Run("a setup that fails puts everything back", func(t *testing.T) {
		s.MustExec("systemd-run", "--quiet", "--unit=squatter", "/usr/bin/python3", "-m", "http.server", "8845")
		stage.Until(t, "somebody sits on the entry's port", func() error {
			_, err := s.Exec("grep", "-q", ":228D ", "/proc/net/tcp")
			return err
		})
		if out, err := s.Exec("bitbox-base", "setup", "--yes"); err == nil || !strings.Contains(out, "another program listens on TCP port 8845") {
			t.Errorf("with somebody on the entry's port setup says %v\n%s", err, out)
		}
		s.MustExec("systemctl", "stop", "squatter")
		// systemd can start NGINX again, and with it the unit of its ports, while it is told to stop them
		// all. Here that unit is always started again, once: the first stop waits for it.
		const again, hold = "/run/systemd/system/again.service", "/run/systemd/system/bitbox-base-hold.service"
		write := func(path, content string) {
			s.MustExec("mkdir", "-p", filepath.Dir(path))
			if _, err := s.ExecInput(content+"\n", "dd", "status=none", "of="+path); err != nil {
				t.Fatal(err)
			}
		}
		write(again, "[Unit]\nConditionPathExists=/run/once\n[Service]\nType=oneshot\n"+
			"ExecStart=/usr/bin/systemctl start "+generation.PortsUnit+"\nExecStart=/usr/bin/rm /run/once")
		write(hold, "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/true\n"+
			"ExecStop=/bin/sh -c 'while test -e /run/once; do sleep 0.1; done'")
		for unit, lines := range map[string]string{
			generation.FirewallUnit: "[Service]\nExecStartPre=/bin/false",
			generation.ProxyUnit:    "[Service]\nExecStart=\nExecStart=/usr/sbin/nginx -v",
		} {
			directory, ports := "/run/systemd/system/"+unit+".d", "/run/systemd/system/"+generation.PortsUnit+".d"
			write(directory+"/broken.conf", lines)
			write(ports+"/again.conf", "[Unit]\nOnSuccess=again.service")
			write("/run/once", "")
			s.MustExec("systemctl", "start", filepath.Base(hold))
			s.MustExec("systemd-run", "--quiet", "--remain-after-exit", "--unit=setup", "--property=StandardOutput=file:/run/setup",
				"--property=StandardError=file:/run/setup",
				"bitbox-base", "setup", "--yes")
			stage.Until(t, "setup begins to put everything back", func() error {
				// systemd-run does not wait until the file is there.
				out, err := s.Exec("cat", "/run/setup")
				if err == nil && !strings.Contains(out, "starting the Base") {
					err = errors.New(out)
				}
				return err
			})
			stage.Until(t, "setup has put everything back", func() error {
				if out := s.MustExec("cat", "/run/setup"); !strings.Contains(out, "restored") {
					return errors.New(out)
				}
				return nil
			})
			t.Logf("with a broken %s: %s", unit, lastLine(s.MustExec("cat", "/run/setup")))
			_, _ = s.Exec("systemctl", "stop", "setup")
			_, _ = s.Exec("systemctl", "reset-failed", "setup")
			s.MustExec("rm", "-r", directory, ports, "/run/setup")
			s.MustExec("systemctl", "daemon-reload")
		}
		if _, err := s.Exec("cat", "/run/once"); err == nil {
			t.Error("nothing was started again, so this test shows less")
		}
		s.MustExec("rm", again, hold)
		s.MustExec("systemctl", "daemon-reload")
		untouched(t, "after a failed setup")
	})

	t.Run("setup makes it a Base", func(t *testing.T) {
		out, err := s.ExecInput("yes\n", "bitbox-base", "setup")
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, words := range []string{"ssh.service", "TCP port 8845", "/etc/login.defs", "nginx.service -> /dev/null"} {
			if !strings.Contains(out, words) {
				t.Errorf("before it asked, setup did not tell of %q:\n%s", words, out)
			}
		}
		for _, target := range []netip.Addr{s.V4, s.V6} {
			if found := stranger.Scan(t, target, "-sS", "-p-", "--min-rate", "20000"); !slices.Equal(found, []string{"tcp 8845 open"}) {
				t.Errorf("at %s these TCP ports answer: %q", target, found)
			}
		}
		if ours(s) == "" {
			t.Error("nothing of ours runs: that nothing did before was not seen")
		}
		if out, err := long(t, s, "bitbox-base", "setup", "--yes"); err != nil || !strings.Contains(out, "already") {
			t.Errorf("a second setup says %v\n%s", err, out)
		}
	})

	phone := pair(t, s, s.Attacker(2))
	err := call(t, phone, func(ctx context.Context, session *client.Session) error {
		_, err := session.Apply(ctx, client.Change{
			Edit: client.Expose(string(posture.KindElectrum), client.Opening{For: time.Hour}), Unlock: true,
			Approve: func([]client.PostureChange) (bool, error) { return true, nil },
		})
		return err
	})
	if err != nil {
		t.Fatalf("open an extra API: %s", client.Explain(err))
	}
	const identity = "/var/lib/bitbox-base/middleware"
	certificates := func() string {
		return s.MustExec("find", generation.CertificateDirectory, "-type", "f", "-exec", "sha256sum", "{}", "+")
	}
	issued := certificates()
	if issued == "" {
		t.Fatal("there are no certificates to be kept")
	}
	hostKey := s.MustExec("sha256sum", generation.HostKey)
	kept := func(t *testing.T, when, version string) {
		t.Helper()
		answers(t, s, phone, when)
		err := call(t, phone, func(ctx context.Context, session *client.Session) error {
			view, err := session.Posture(ctx)
			if err == nil && len(view.Effective().Endpoints) != 2 {
				err = fmt.Errorf("in force is %+v", view.Effective())
			}
			return err
		})
		if err != nil {
			t.Errorf("%s the posture: %s", when, client.Explain(err))
		}
		if certificates() != issued || s.MustExec("sha256sum", generation.HostKey) != hostKey {
			t.Errorf("%s there are other certificates, or another host key", when)
		}
		if out := s.MustExec("bitbox-base", "version"); !strings.Contains(out, " "+version+" ") {
			t.Errorf("%s the version is %s", when, out)
		}
		if found := stranger.Scan(t, s.V4, "-sS", "-p", "22,80,5353,8845,8846,50001,50002"); !slices.Equal(found,
			[]string{"tcp 8845 open", "tcp 50002 open"}) {
			t.Errorf("%s these ports answer: %q", when, found)
		}
	}
	kept(t, "before any upgrade", oldVersion)

	t.Run("an upgrade that fails in the middle", func(t *testing.T) {
		s.MustExec("touch", "/run/fail")
		if out, err := install(t, s, failing); err == nil {
			t.Fatalf("it did not fail\n%s", out)
		}
		answers(t, s, phone, "after a failed upgrade")
		s.MustExec("rm", "/run/fail")
		mustLong(t, s, "dpkg", "--configure", "-a")
		kept(t, "after dpkg --configure -a", newVersion)
	})
	t.Run("going back, by hand", func(t *testing.T) {
		mustLong(t, s, "dpkg", "--install", everywhere(first))
		kept(t, "after going back", oldVersion)
	})
	t.Run("an upgrade that is killed, and a power cut", func(t *testing.T) {
		s.MustExec("touch", "/run/hang")
		s.MustExec("systemd-run", "--quiet", "--unit=upgrade", "dpkg", "--install", everywhere(failing))
		stage.Until(t, "the upgrade is in its middle", func() error {
			_, err := s.Exec("test", "-e", "/run/hanging")
			return err
		})
		s.MustExec("systemctl", "kill", "--signal=KILL", "upgrade")
		answers(t, s, phone, "after dpkg was killed")
		s.Kill()
		s.Start()
		answers(t, s, phone, "after a power cut in an upgrade")
		mustLong(t, s, "dpkg", "--configure", "-a")
		kept(t, "after the repair", newVersion)
	})
	t.Run("an upgrade replaces what runs", func(t *testing.T) {
		mustLong(t, s, "dpkg", "--install", everywhere(first))
		pids := func() string {
			return s.MustExec("systemctl", "show", "--property=MainPID", "--value", "bitbox-base-system.service", generation.MiddlewareUnit,
				generation.ProxyUnit)
		}
		was := strings.Fields(pids())
		if out, err := install(t, s, second); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		kept(t, "after an upgrade", newVersion)
		is := strings.Fields(pids())
		if len(is) != 3 || len(was) != 3 || is[0] == was[0] || is[1] == was[1] {
			t.Errorf("after an upgrade the old programs run on: %q, before %q", is, was)
		}
		if is[2] != was[2] {
			t.Errorf("an upgrade that does not concern NGINX has restarted it")
		}
	})
	t.Run("a new NGINX of Debian's is taken up", func(t *testing.T) {
		main := func() string {
			return s.MustExec("systemctl", "show", "--property=MainPID", "--value", generation.ProxyUnit)
		}
		was := main()
		s.MustExec("sh", "-c", "cp /usr/sbin/nginx /usr/sbin/nginx.new && mv /usr/sbin/nginx.new /usr/sbin/nginx && dpkg-trigger --by-package=nginx /usr/sbin/nginx && dpkg --triggers-only -a")
		if main() == was {
			t.Error("the old NGINX runs on")
		}
		answers(t, s, phone, "with a new NGINX")
	})

	t.Run("removing makes it what it was", func(t *testing.T) {
		mustLong(t, s, "dpkg", "--remove", "bitbox-base")
		untouched(t, "after the removal")
		if _, err := s.Exec("test", "-d", identity); err != nil {
			t.Error("the removal has taken the identity away; that is for purge")
		}
	})
	t.Run("who installs it again finds all of it", func(t *testing.T) {
		mustLong(t, s, "dpkg", "--install", everywhere(second))
		mustLong(t, s, "bitbox-base", "setup", "--yes")
		kept(t, "after it was installed again", newVersion)
	})
	t.Run("purging leaves no state", func(t *testing.T) {
		mustLong(t, s, "dpkg", "--purge", "bitbox-base")
		untouched(t, "after the purge")
		for _, path := range []string{"/var/lib/bitbox-base", "/etc/bitbox-base", "/usr/lib/bitbox-base", "/usr/bin/bitbox-base"} {
			if _, err := s.Exec("test", "-e", path); err == nil {
				t.Errorf("%s is left: %s", path, s.MustExec("find", path))
			}
		}
		s.Reboot()
		stage.Until(t, "all listen as they did", func() error {
			if l := listens(s); !slices.Equal(l, listened) {
				return fmt.Errorf("there are %q", l)
			}
			return nil
		})
	})
}

// A user who sets up over SSH would be cut off, unless a key and a lease are provided: then SSH,
// now the Base's, is on at the end.
func TestSetupOverSSHNeedsAKeyAndALease(t *testing.T) {
	t.Parallel()
	stage.NeedRoot(t, "nmap", "dpkg-deb", "ssh-keygen")
	s := debian(t, nil, deb(t, newVersion))
	mustLong(t, s, "dpkg", "--install", everywhere(deb(t, newVersion)))
	directory := t.TempDir()
	host(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(directory, "key"))
	key, err := os.ReadFile(filepath.Join(directory, "key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	s.MustExec("mkdir", "-p", provision.Directory)
	for name, content := range map[string]string{provision.KeysFile: string(key), provision.LeaseFile: "1h\n"} {
		if out, err := overSSH(t, s); err == nil || !strings.Contains(out, setup.ErrOverSSH.Error()) {
			t.Fatalf("before %s is there setup says %v\n%s", name, err, out)
		}
		if _, err := s.ExecInput(content, "dd", "status=none", "of="+filepath.Join(provision.Directory, name)); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := overSSH(t, s); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if found := s.Attacker(1).Scan(t, s.V4, "-sS", "-p", "22,80,8845"); !slices.Equal(found, []string{"tcp 22 open", "tcp 8845 open"}) {
		t.Errorf("these ports answer: %q", found)
	}
}

// newServers are the packages with servers that start at their installation.
var newServers = []string{"avahi-daemon", "fail2ban", "nginx-common", "nginx", "libnginx-mod-stream", "openssh-server", "systemd-resolved"}

// Where Debian's servers were not installed before, they come with our package, and
// Debian starts them at their installation. apt does it all here, in its own order.
func TestServersThatComeWithThePackageStaySilent(t *testing.T) {
	t.Parallel()
	stage.NeedRoot(t, "dpkg-deb")
	for _, variant := range []struct {
		name   string
		edit   func(root string)
		silent bool
	}{
		{"as it is shipped", nil, true},
		{"without what keeps them silent", func(root string) {
			if err := os.Remove(filepath.Join(root, "DEBIAN/preinst")); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(variant.name, func(t *testing.T) {
			t.Parallel()
			file := deb(t, oldVersion)
			if variant.edit != nil {
				file = rebuilt(t, file, variant.edit)
			}
			s := debian(t, func(root string) {
				for _, name := range newServers {
					repacked(t, root, name, filepath.Join(root, "var/packages"))
				}
			}, file)
			mustLong(t, s, append([]string{"dpkg", "--force-depends", "--force-unsafe-io", "--purge"}, newServers...)...)
			before := listens(s)
			if len(before) != 0 {
				t.Fatalf("before there listen %q", before)
			}
			var files []string
			for _, name := range newServers {
				files = append(files, "/var/packages/"+name+".deb")
			}
			argv := append([]string{"apt-get", "install", "--yes", "-o", "Dpkg::Options::=--force-unsafe-io", "-o", "APT::Sandbox::User=root",
				everywhere(file)}, files...)
			mustLong(t, s, argv...)
			after := listens(s)
			t.Logf("before there listen %q, afterwards %q", before, after)
			if slices.Equal(before, after) != variant.silent {
				t.Errorf("the installation kept the servers silent: %t", !variant.silent)
			}
			if !variant.silent {
				return
			}
			s.Reboot()
			if l := listens(s); !slices.Equal(l, before) {
				t.Errorf("after a reboot there listen %q", l)
			}
			mustLong(t, s, "bitbox-base", "setup", "--yes")
			if found := s.Attacker(1).Scan(t, s.V4, "-sS", "-p", "22,80,443,5353,8845"); !slices.Equal(found, []string{"tcp 8845 open"}) {
				t.Errorf("on the Base these ports answer: %q", found)
			}
			// The resolver goes along, as it does with apt's autoremove. It would go on, as
			// Debian's does.
			mustLong(t, s, "dpkg", "--purge", "bitbox-base", "systemd-resolved")
			if l := listens(s); !slices.Equal(l, before) {
				t.Errorf("after the purge there listen %q", l)
			}
			s.Reboot()
			if l := listens(s); !slices.Equal(l, before) {
				t.Errorf("after the purge and a reboot there listen %q", l)
			}
			if left := s.MustExec("find", "/etc/systemd/system", "-lname", "/dev/null"); left != "" {
				t.Errorf("after the purge there are masks: %s", left)
			}
		})
	}
}

// The same source gives the same bytes, in another folder, at another time, for
// another user's settings.
func TestThePackageIsReproducible(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("SKIPPED, not passed: dpkg-deb is not installed (package dpkg)")
	}
	// Copies without history: the source may change while the tests run.
	directory := t.TempDir()
	here, elsewhere := filepath.Join(directory, "here"), filepath.Join(directory, "another place")
	if err := os.Mkdir(here, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"api", "client", "cmd", "internal", "node", "packaging", "scripts", "go.mod", "go.sum"} {
		host(t, "cp", "-RP", filepath.Join("../..", name), here)
	}
	// Other modes, times and settings.
	host(t, "cp", "-RP", here, elsewhere)
	host(t, "chmod", "-R", "go-rwx", filepath.Join(elsewhere, "packaging"))
	host(t, "find", elsewhere, "-exec", "touch", "-h", "-d", "@1234567890", "{}", "+")
	for _, name := range []string{"bitbox-base", "bitbox-app"} {
		one := makePackage(t, name, here, oldVersion, t.TempDir(), sourceDate)
		two := makePackage(t, name, elsewhere, oldVersion, t.TempDir(), sourceDate, "TZ=Asia/Tokyo", "LC_ALL=C.UTF-8", "GOFLAGS=-mod=mod")
		first, err1 := os.ReadFile(one)
		again, err2 := os.ReadFile(two)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if string(first) != string(again) {
			t.Errorf("%s and its like from elsewhere differ", filepath.Base(one))
		}
		contents, err := exec.Command("dpkg-deb", "--contents", one).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"man/man1/" + name + ".1.gz", "bash-completion/completions/" + name, "doc/" + name + "/copyright"} {
			if !strings.Contains(string(contents), "./usr/share/"+path+"\n") {
				t.Errorf("%s lacks %s", filepath.Base(one), path)
			}
		}
	}
}
