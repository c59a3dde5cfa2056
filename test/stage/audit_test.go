//go:build linux

package stage_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/audit"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/packaging"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// auditUnit runs the audit in the sandbox of the system helper.
const auditUnit = "audit-under-test@%s.service"

// installAuditor puts the test's program in the place of the Base's, and a unit
// beside ours that has the helper's sandbox.
func installAuditor(t *testing.T, root string) {
	t.Helper()
	command := exec.Command("go", "build", "-o", filepath.Join(root, "usr/bin/bitbox-base"), "./auditor")
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build the auditor: %v\n%s", err, out)
	}
	helper, err := packaging.Units.ReadFile("root/usr/lib/systemd/system/bitbox-base-system.service")
	if err != nil {
		t.Fatal(err)
	}
	_, service, _ := strings.Cut(string(helper), "[Service]\n")
	service, _, _ = strings.Cut(service, "[Install]")
	var lines []string
	for line := range strings.Lines(service) {
		key, _, _ := strings.Cut(line, "=")
		if !slices.Contains([]string{"Type", "ExecStart", "Restart", "RestartSec"}, key) {
			lines = append(lines, line)
		}
	}
	text := "[Service]\nType=oneshot\nExecStart=/usr/bin/bitbox-base audit %i\n" +
		"StandardInput=file:/var/lib/audit-under-test/want\nStandardOutput=truncate:/var/lib/audit-under-test/findings\n" +
		"StandardError=truncate:/var/lib/audit-under-test/error\n" + strings.Join(lines, "")
	write := func(path, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, path), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("etc/systemd/system/audit-under-test@.service", text)
	write("var/lib/audit-under-test/want", "")
}

// inside asks for an audit or a fix on the stage.
func inside(t *testing.T, s *stage.Stage, want audit.Expectation, what string) (string, error) {
	t.Helper()
	input, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.ExecInput(string(input), "dd", "of=/var/lib/audit-under-test/want", "status=none"); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Exec("systemctl", "start", fmt.Sprintf(auditUnit, what)); err != nil {
		complaint, _ := s.Exec("cat", "/var/lib/audit-under-test/error")
		return "", fmt.Errorf("%w: %s%s", err, out, complaint)
	}
	return s.MustExec("cat", "/var/lib/audit-under-test/findings"), nil
}

func runAudit(t *testing.T, s *stage.Stage, want audit.Expectation) map[string]string {
	t.Helper()
	out, err := inside(t, s, want, "run")
	if err != nil {
		t.Fatal(err)
	}
	var findings []struct{ ID, Found string }
	if err := json.Unmarshal([]byte(out), &findings); err != nil {
		t.Fatalf("read the findings: %v\n%s", err, out)
	}
	found := map[string]string{}
	for _, f := range findings {
		found[f.ID] = f.Found
	}
	// Most settings of the kernel are the host's, and that has to be said; the network's are the
	// Base's own.
	if lines := strings.Split(found["kernel-settings-host"], "\n"); slices.ContainsFunc(lines,
		func(line string) bool { return strings.HasPrefix(line, "net.ipv") }) {
		t.Errorf("settings of the network are told as the host's: %q", lines)
	}
	delete(found, "kernel-settings-host")
	// The root of the stage has no lists of packages, and that has to be said.
	if _, told := found["updates-unknown"]; !told {
		t.Error("that nobody knows about updates was not told")
	}
	delete(found, "updates-unknown")
	return found
}

// sabotage is something that somebody does to a Base.
type sabotage struct {
	what string
	// commands do it.
	commands [][]string
	// finds are the ids of all findings, sorted.
	finds []string
	// fixes are applied one after the other; then all is well again.
	fixes []string
	// undo is what a person does where no fix is known.
	undo [][]string
}

func sh(words string) []string { return strings.Fields(words) }

const (
	currentDirectory = generation.StateDirectory + "/current/"
	rogueKey         = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA rogue"
	nginxDropIns     = "/etc/systemd/system/bitbox-base-nginx.service.d"
)

var sabotages = []sabotage{
	{
		what:     "a listener",
		commands: [][]string{sh("systemd-run --quiet --unit=rogue /usr/bin/python3 -m http.server 4444")},
		finds:    []string{"listener-unexpected"},
		undo:     [][]string{sh("systemctl stop rogue")},
	},
	{
		what:     "a port opened in the packet filter",
		commands: [][]string{sh("iptables -I INPUT -p tcp --dport 4444 -j ACCEPT")},
		finds:    []string{"firewall-ipv4"}, fixes: []string{"firewall-ipv4"},
	},
	{
		what:     "a rule of the packet filter removed",
		commands: [][]string{sh("iptables -D INPUT -m conntrack --ctstate INVALID -j DROP")},
		finds:    []string{"firewall-ipv4"}, fixes: []string{"firewall-ipv4"},
	},
	{
		what:     "the packet filter for IPv6 flushed and opened",
		commands: [][]string{sh("ip6tables -F"), sh("ip6tables -P INPUT ACCEPT")},
		finds:    []string{"firewall-foreign", "firewall-ipv6"}, fixes: []string{"firewall-ipv6"},
	},
	{
		what: "a disk that fails", // as bitbox-base-disks.service leaves it
		commands: [][]string{{"sh", "-c", `mkdir -p /run/bitbox-base/disks && echo '{"disks":[{"name":"sda","model":"SSD",` +
			`"health":{"verdict":"VERDICT_FAILING","reason":"it says so"}}]}' >/run/bitbox-base/disks/list.json`}},
		finds: []string{"disk-failing"}, undo: [][]string{sh("rm /run/bitbox-base/disks/list.json")},
	},
	{
		what: "a redirect in a table of nftables",
		commands: [][]string{
			sh("nft add table ip evil"), sh("nft add chain ip evil p { type nat hook prerouting priority -100 ; }"),
			sh("nft add rule ip evil p tcp dport 8845 redirect to :22"),
		},
		finds: []string{"firewall-foreign"}, fixes: []string{"firewall-foreign"},
	},
	{
		what:     "a chain before the packet filter, in its own table",
		commands: [][]string{sh("nft add chain ip filter evil { type filter hook prerouting priority -300 ; }")},
		finds:    []string{"firewall-foreign"}, fixes: []string{"firewall-foreign"},
	},
	{
		what: "a chain in the table of bans",
		commands: [][]string{
			sh("nft add table inet f2b-table"), sh("nft add chain inet f2b-table evil { type nat hook prerouting priority -100 ; }"),
		},
		finds: []string{"firewall-foreign"}, fixes: []string{"firewall-foreign"},
	},
	{
		what:     "rules of the older iptables",
		commands: [][]string{sh("iptables-legacy -A INPUT -p tcp --dport 22 -j ACCEPT"), sh("ip6tables-legacy -N evil")},
		finds:    []string{"firewall-legacy"}, fixes: []string{"firewall-legacy"},
	},
	{
		what:     "sshd told to take passwords",
		commands: [][]string{{"sed", "-i", "s/^PasswordAuthentication no/PasswordAuthentication yes/", currentDirectory + "sshd_config"}},
		finds:    []string{"generation-files", "ssh-settings"}, fixes: []string{"ssh-settings"},
	},
	{
		what:     "a key slipped in",
		commands: [][]string{{"sed", "-i", "$a" + rogueKey, currentDirectory + "authorized_keys"}},
		finds:    []string{"ssh-keys"}, fixes: []string{"ssh-keys"},
	},
	{
		what:     "a lease of SSH that no owner granted",
		commands: [][]string{sh("touch " + generation.SSHLease)},
		finds:    []string{"ssh-state"}, fixes: []string{"ssh-state"},
	},
	{
		what:     "Debian's SSH unmasked",
		commands: [][]string{sh("systemctl unmask --quiet ssh.service ssh.socket")},
		finds:    []string{"ssh-debian"}, fixes: []string{"ssh-debian"},
	},
	{
		what:     "Debian's NGINX unmasked",
		commands: [][]string{sh("systemctl unmask --quiet nginx.service")},
		finds:    []string{"services-debian"}, fixes: []string{"services-debian"},
	},
	{
		what: "a server added to NGINX",
		commands: [][]string{{"sed", "-i", "s/^stream {/stream { server { listen 9999; proxy_pass 127.0.0.1:22; }/", currentDirectory +
			"nginx.conf"}, sh("systemctl reload " + generation.ProxyUnit)},
		finds: []string{"generation-files", "listener-unexpected"}, fixes: []string{"generation-files"},
	},
	{
		what:     "NGINX stopped",
		commands: [][]string{sh("systemctl stop " + generation.ProxyUnit)},
		finds:    []string{"entry-silent", "unit-stopped"}, fixes: []string{"unit-stopped"},
	},
	{
		what:     "fail2ban stopped",
		commands: [][]string{sh("systemctl stop " + generation.BansUnit)},
		finds:    []string{"fail2ban-silent", "unit-stopped"}, fixes: []string{"fail2ban-silent"},
	},
	{
		what:     "fail2ban told to be patient",
		commands: [][]string{sh("fail2ban-client set sshd maxretry 500")},
		finds:    []string{"fail2ban-settings"}, fixes: []string{"fail2ban-settings"},
	},
	{
		what:     "fail2ban told to spare an address",
		commands: [][]string{sh("fail2ban-client set sshd addignoreip 10.88.0.0/16")},
		finds:    []string{"fail2ban-settings"}, fixes: []string{"fail2ban-settings"},
	},
	{
		what:     "a jail stopped",
		commands: [][]string{sh("fail2ban-client stop sshd")},
		finds:    []string{"fail2ban-settings"}, fixes: []string{"fail2ban-settings"},
	},
	{
		what: "NGINX let out of its sandbox",
		commands: [][]string{
			sh("mkdir -p " + nginxDropIns), {"dd", "of=" + nginxDropIns + "/evil.conf", "status=none"},
			sh("systemctl daemon-reload"), sh("systemctl restart " + generation.ProxyUnit),
		},
		finds: []string{"nginx-privileged", "unit-changed"}, fixes: []string{"unit-changed"},
	},
	{
		what: "NGINX let out of its sandbox, and the traces removed",
		commands: [][]string{
			sh("mkdir -p " + nginxDropIns), {"dd", "of=" + nginxDropIns + "/evil.conf", "status=none"},
			sh("systemctl daemon-reload"), sh("systemctl restart " + generation.ProxyUnit),
			sh("rm -r " + nginxDropIns), sh("systemctl daemon-reload"),
		},
		finds: []string{"nginx-privileged", "unit-changed"}, fixes: []string{"nginx-privileged"},
	},
	{
		what:     "a provisioning file left for the next factory reset",
		commands: [][]string{sh("touch " + generation.StateDirectory + "/provision.late")}, // what the boot unit does then
		finds:    []string{"provisioning-late"},
		undo:     [][]string{sh("rm " + generation.StateDirectory + "/provision.late")},
	},
	{
		what:     "a unit masked",
		commands: [][]string{sh("systemctl mask --quiet --runtime --now " + generation.BansUnit)},
		finds:    []string{"fail2ban-silent", "unit-changed", "unit-stopped"}, fixes: []string{"unit-changed", "unit-stopped"},
	},
	{
		what:     "a file of the configuration opened to everybody",
		commands: [][]string{sh("chmod 0777 " + currentDirectory + "nginx.conf")},
		finds:    []string{"generation-files", "world-writable"}, fixes: []string{"generation-files", "world-writable"},
	},
	{
		what:     "a file too many in the configuration",
		commands: [][]string{sh("touch " + currentDirectory + "fail2ban/jail.local")},
		finds:    []string{"generation-files"}, fixes: []string{"generation-files"},
	},
	{
		what:     "the host key opened to everybody",
		commands: [][]string{sh("chmod 0644 " + generation.HostKey), sh("chown www-data " + generation.HostKey)},
		finds:    []string{"file-modes"}, fixes: []string{"file-modes"},
	},
	{
		what:     "the way to the helper opened to everybody",
		commands: [][]string{sh("chmod 0666 " + generation.SystemSocket)},
		finds:    []string{"file-modes"}, fixes: []string{"file-modes"},
	},
	{
		what:     "system files that everybody can write",
		commands: [][]string{sh("touch /etc/evil"), sh("chmod 0666 /etc/evil"), sh("mkdir -m 0777 /usr/local/evil")},
		finds:    []string{"world-writable"}, fixes: []string{"world-writable"},
	},
	{
		what:     "a ladder to root",
		commands: [][]string{sh("install -m 4755 /usr/bin/dash /usr/local/bin/evil")},
		finds:    []string{"setuid"},
		undo:     [][]string{sh("rm /usr/local/bin/evil")},
	},
	{
		what:     "a password",
		commands: [][]string{sh("usermod -p $6$salt$hash base")},
		finds:    []string{"password"}, fixes: []string{"password"},
	},
	{
		what:     "no password needed",
		commands: [][]string{{"usermod", "-p", "", "root"}},
		finds:    []string{"password"}, fixes: []string{"password"},
	},
	{
		what:     "a second root",
		commands: [][]string{sh("useradd --non-unique --uid 0 --no-create-home toor")},
		finds:    []string{"second-root"},
		undo:     [][]string{sh("userdel -f toor")},
	},
	{
		what:     "another Debian",
		commands: [][]string{{"sed", "-i", "s/^VERSION_ID=.*/VERSION_ID=12/", "/usr/lib/os-release"}},
		finds:    []string{"debian-support"},
		undo:     [][]string{{"sed", "-i", "s/^VERSION_ID=.*/VERSION_ID=\"13\"/", "/usr/lib/os-release"}},
	},
	{
		what: "a unit's file changed",
		commands: [][]string{{"sed", "-i", "s/^NoNewPrivileges=yes/NoNewPrivileges=no/", "/usr/lib/systemd/system/bitbox-base-avahi.service"},
			sh("systemctl daemon-reload")},
		finds: []string{"unit-changed"},
		undo: [][]string{{"sed", "-i", "s/^NoNewPrivileges=no/NoNewPrivileges=yes/", "/usr/lib/systemd/system/bitbox-base-avahi.service"},
			sh("systemctl daemon-reload")},
	},
}

// evilDropIn is what the sabotage of a sandbox writes.
const evilDropIn = "[Service]\nNoNewPrivileges=no\nSystemCallFilter=\nCapabilityBoundingSet=CAP_SYS_ADMIN\nAmbientCapabilities=CAP_SYS_ADMIN\n"

// Each sabotage happens to real servers, is found under the very names that are
// promised and no other, is repaired where that is promised, and leaves nothing
// that the next audit finds. The audit runs in the sandbox of the system helper.
func TestAuditFindsEachSabotageAndItsFixRepairsIt(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{Prepare: installAuditor})
	want := audit.Expectation{Posture: stage.Factory()}
	isClean := func() error {
		if found := runAudit(t, s, want); len(found) > 0 {
			return fmt.Errorf("the audit finds %v", found)
		}
		return nil
	}
	s.Until("a Base as it comes is clean", isClean)
	begun := time.Now()
	if err := isClean(); err != nil {
		t.Fatal(err)
	}
	t.Logf("an audit takes %v", time.Since(begun).Round(10*time.Millisecond))
	for _, c := range sabotages {
		// The leftovers of one would be found by all that follow.
		if !t.Run(c.what, func(t *testing.T) {
			// The fix before may have started it again; it answers a moment later, and has its jails one more later.
			stage.Until(t, "fail2ban has its jails", func() error { _, err := s.Exec("fail2ban-client", "status", "sshd"); return err })
			for _, command := range c.commands {
				if out, err := s.ExecInput(evilDropIn, command...); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			var found map[string]string
			stage.Until(t, "the audit finds what was done", func() error {
				found = runAudit(t, s, want)
				if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, c.finds) {
					return fmt.Errorf("it finds %v, not %v:\n%v", got, c.finds, found)
				}
				return nil
			})
			t.Logf("%v", found)
			if c.fixes == nil {
				for _, id := range c.finds {
					if _, err := inside(t, s, want, "fix-"+id); err == nil {
						t.Errorf("%s was fixed, though nobody knows how", id)
					}
				}
			}
			for _, id := range c.fixes {
				if _, err := inside(t, s, want, "fix-"+id); err != nil {
					t.Errorf("fix %s: %v", id, err)
				}
			}
			for _, command := range c.undo {
				s.MustExec(command...)
			}
			// That all is well again is what the next one shows, which finds
			// exactly what is its own.
		}) {
			return
		}
	}
	s.Until("the Base is clean at the end", isClean)
}
