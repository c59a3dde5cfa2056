//go:build linux

package stage_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// escapes are the attempts of an intruder who has taken a service over, as lines for
// bash. Each line must fail in every service.
var escapes = map[string]string{
	"become root by systemd":            "systemd-run --wait --quiet touch /run/escaped",
	"ask systemd by its private socket": connects("/run/systemd/private"),
	"ask by D-Bus":                      connects("/run/dbus/system_bus_socket"),
	"write into the system":             "touch /usr/bin/escaped || touch /etc/escaped",
	"write the configuration":           "touch " + generation.StateDirectory + "/escaped " + generation.Current(generation.AuthorizedKeys),
	"lease SSH":                         "touch " + generation.SSHLease,
	"read the host key":                 "cat " + generation.HostKey,
	"see other processes":               "ps -e -o comm= | grep -q systemd",
	"change the packet filter":          "iptables -F || nft flush ruleset",
	// A packet that is dropped in silence is tried again for minutes.
	"call somebody":              `timeout 5 bash -c "exec 3<>/dev/tcp/10.88.1.66/443"`,
	"hide in a namespace":        "unshare --user --net true",
	"read the log of the kernel": "dmesg",
	"read homes":                 "ls /home/base /root",
	"look at devices":            "ls /dev/vda /dev/mem /dev/kmsg",
	"run a program from memory": `python3 -c "import os; f = os.memfd_create(\"x\"); ` +
		`os.write(f, open(\"/usr/bin/true\", \"rb\").read()); os.execve(f, [\"true\"], {})"`,
	"end what holds the ports of NGINX": `pkill -0 --full "bitbox-base [p]orts"`,
}

func connects(socket string) string {
	return fmt.Sprintf(`python3 -c "import socket; socket.socket(socket.AF_UNIX).connect(\"%s\")"`, socket)
}

// takenOver starts the unit's sandbox with bash inside, as if an intruder had
// made its program execute it, and lets the intruder try. The sandbox would
// not execute bash, so the test lifts only that restriction: NoExecPaths has a test of
// its own.
//
// loosened are directives that it gets beside.
func takenOver(t *testing.T, unit string, script string, loosened ...string) string {
	t.Helper()
	s := stage.Boot(t, stage.Config{Prepare: func(t *testing.T, root string) {
		for path, content := range map[string]string{
			filepath.Join("etc/systemd/system", unit+".d",
				"taken-over.conf"): "[Unit]\nConditionPathExists=\n[Service]\nType=oneshot\nRestart=no\nExecStart=\nExecStart=/bin/bash /usr/lib/attack.sh\n" +
				"ExecPaths=/\nNoExecPaths=\nStandardOutput=journal\nStandardInput=null\n" + strings.Join(loosened, "\n") + "\n",
			"usr/lib/attack.sh": script,
			// The units of the node name it, and the stage has no node.
			"usr/bin/bitbox-node": "",
		} {
			path = filepath.Join(root, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}})
	outside := s.Attacker(1)
	listener, err := outside.Listen("tcp", ":443")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, listener, "hello\n")
	s.MustExec("systemctl", "restart", unit)
	return s.Printed(unit)
}

func attackScript() string {
	b := &strings.Builder{}
	for name, line := range escapes {
		fmt.Fprintf(b, "if said=$(bash -c '%s' 2>&1 </dev/null); then echo 'ESCAPED: %s'; else echo \"held (%[2]s): $? $said\"; fi\n", line, name)
	}
	b.WriteString("echo all tried\n")
	return b.String()
}

func escaped(journal string) []string {
	var names []string
	for line := range strings.Lines(journal) {
		if name, found := strings.CutPrefix(strings.TrimSpace(line), "ESCAPED: "); found {
			names = append(names, name)
		}
	}
	return names
}

// othersToSignal is a script that counts the processes that it could end, beside itself.
const othersToSignal = `n=0
for p in $(seq 2 9999); do [ $p = $$ ] || ! kill -0 $p 2>/dev/null || n=$((n+1)); done
echo "others: $n"
`

// fail2ban is root, though with one privilege. Root may end each process of root, the system
// helper and systemd's own services among them.
func TestFail2banCannotEndWhatIsNotItsOwn(t *testing.T) {
	t.Parallel()
	journal := takenOver(t, generation.BansUnit, othersToSignal)
	if !strings.Contains(journal, "others: 0\n") {
		t.Errorf("taken over it sees others:\n%s", journal)
	}
	journal = takenOver(t, generation.BansUnit, othersToSignal, "PrivatePIDs=no")
	if !strings.Contains(journal, "others: ") || strings.Contains(journal, "others: 0\n") {
		t.Errorf("without a list of processes of its own it sees none either, so this test shows nothing:\n%s", journal)
	}
}

func TestATakenOverServiceCanDoNothing(t *testing.T) {
	t.Parallel()
	for _, unit := range []string{generation.MiddlewareUnit, generation.ProxyUnit, generation.MDNSUnit, generation.ChainUnit,
		generation.WatcherUnit, generation.WalletUnit} {
		t.Run(unit, func(t *testing.T) {
			t.Parallel()
			journal := takenOver(t, unit, attackScript())
			if !strings.Contains(journal, "all tried") {
				t.Fatalf("the attack did not run:\n%s", journal)
			}
			if names := escaped(journal); names != nil {
				t.Errorf("it can: %q", names)
			}
		})
	}
}

// notInAContainer are attempts that fail without a sandbox, too: the packet filter stops even root from calling,
// until root flushes it, and the container has no devices and no log of the kernel.
var notInAContainer = []string{"call somebody", "look at devices", "read the log of the kernel"}

// The attacks must be able to succeed: without the sandbox they do.
func TestTheAttacksOnSandboxesWork(t *testing.T) {
	t.Parallel()
	const bare = "bare.service"
	s := stage.Boot(t, stage.Config{Prepare: func(t *testing.T, root string) {
		unit := "[Service]\nType=oneshot\nExecStart=/bin/bash /usr/lib/attack.sh\n"
		for path, content := range map[string]string{"etc/systemd/system/" + bare: unit, "usr/lib/attack.sh": attackScript()} {
			if err := os.WriteFile(filepath.Join(root, path), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}})
	s.WaitActive(generation.PortsUnit) // one attack is at it
	s.MustExec("systemctl", "start", bare)
	journal := s.Printed(bare)
	names := escaped(journal)
	for name := range escapes {
		if !slices.Contains(names, name) && !slices.Contains(notInAContainer, name) {
			t.Errorf("without a sandbox it cannot %s:\n%s", name, journal)
		}
	}
}

// A service executes nothing but itself: a program that an intruder brings along,
// or finds, does not start.
func TestAServiceExecutesNothingElse(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{})
	for _, unit := range []string{generation.MiddlewareUnit, generation.ProxyUnit, generation.MDNSUnit} {
		s.WaitActive(unit)
		pid := strings.TrimSpace(s.MustExec("systemctl", "show", "--property=MainPID", "--value", unit))
		// In the mount namespace of the service, even root cannot execute it.
		for _, program := range []string{"/bin/bash", "/usr/bin/python3", "/usr/bin/id"} {
			if out, err := s.Exec("nsenter", "--target="+pid, "--mount", program, "--version"); err == nil {
				t.Errorf("%s executes %s: %s", unit, program, out)
			}
		}
	}
	if out, err := s.Exec("nsenter", "--target=1", "--mount", "/bin/bash", "--version"); err != nil {
		t.Errorf("nor does systemd itself, so this test shows nothing: %v %s", err, out)
	}
}
