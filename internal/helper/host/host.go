// Package host gives the helper access to the machine, through Debian's own programs.
package host

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/apply"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/firewall"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/proxy"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/slot"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/turns"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Host is the machine that this process runs on: it implements Live, Banner and Announcer with
// Debian's programs. Every unit and path is a constant of internal/helper/generation.
type Host struct {
	// places limit how many programs run at the same time.
	places chan struct{}
	// closing is had by what closes the Base. All else waits for it.
	closing *turns.Precedence
	// reserved: it does not wait, because it closes the Base.
	reserved bool
	// exec runs a program; it is Exec except in tests.
	exec func(ctx context.Context, argv ...string) (output string, err error)
	// lines runs a program whose output may be long; it is lines except in tests.
	lines func(ctx context.Context, receive func(line []byte, more bool) error, argv ...string) error
}

const (
	// MaxPrograms is how many programs run at once for all callers.
	MaxPrograms = 6
	// reservedPrograms is how many more may run to put the posture in force, so that no caller's
	// requests can keep the Base from closing.
	reservedPrograms = 2
)

// New returns the machine, with places for this many programs at once, which all users of this
// Host share.
func New(programs int) Host {
	return Host{places: make(chan struct{}, programs), closing: &turns.Precedence{}, exec: Exec, lines: lines}
}

// Reserved is the same machine, with a few program places of its own. It does not wait for what
// closes the Base: it closes it.
func (m Host) Reserved() Host {
	m.places, m.reserved = make(chan struct{}, reservedPrograms), true
	return m
}

// Closing implements apply.Live: until end, no other program begins, and nobody else has systemd do
// anything.
func (m Host) Closing() (end func()) { return m.closing.Take() }

// AwaitClosing waits until nothing is being closed. However slow the machine is, a closing then
// waits for no more than what had begun before it.
func (m Host) AwaitClosing(ctx context.Context) error {
	if m.reserved || m.closing == nil {
		return nil
	}
	if err := m.closing.Await(ctx); err != nil {
		return reason.Errorf("wait until the Base is closed as was asked for: %w", err)
	}
	return nil
}

// run waits for a place, and runs a program.
func (m Host) run(ctx context.Context, argv ...string) (string, error) {
	give, err := m.place(ctx, argv[0])
	if err != nil {
		return "", err
	}
	defer give()
	return m.exec(ctx, argv...)
}

// place waits for a place for a program.
func (m Host) place(ctx context.Context, program string) (give func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	select {
	case m.places <- struct{}{}:
	case <-ctx.Done():
		return nil, reason.Errorf("run %s: wait for other programs to end: %w", program, ctx.Err())
	}
	if err := m.AwaitClosing(ctx); err != nil {
		<-m.places
		return nil, reason.Errorf("run %s: %w", program, err)
	}
	return func() { <-m.places }, nil
}

func (m Host) do(ctx context.Context, argv ...string) error {
	_, err := m.run(ctx, argv...)
	return err
}

// Provide makes the certificates of open extra APIs, and sshd's host key. Existing ones stay,
// because clients have pinned them.
func (m Host) Provide(_ context.Context, e posture.Effective) error {
	for _, endpoint := range e.Endpoints {
		if endpoint.Kind == posture.KindEntry {
			continue
		}
		if _, err := proxy.EnsureCertificate(rand.Reader, generation.CertificateDirectory, string(endpoint.Kind)); err != nil {
			return err
		}
	}
	return sshaccess.EnsureHostKey(rand.Reader, generation.HostKey)
}

// Identities returns how a client recognises what is open. It leaves out what cannot be read; the
// audit reports the reason.
func (m Host) Identities(e posture.Effective) posture.Identities {
	i := IdentitiesIn(generation.HostKey, generation.CertificateDirectory, e)
	if running, err := slot.Look(); err == nil {
		i.Image = &running
	}
	return i
}

// IdentitiesIn reads the host key and the certificates from other places.
func IdentitiesIn(hostKey, certificates string, e posture.Effective) posture.Identities {
	i := posture.Identities{Certificates: map[posture.Kind][sha256.Size]byte{}}
	i.SSHHostKey, _ = sshaccess.PublicHostKey(hostKey)
	for _, endpoint := range e.Endpoints {
		if endpoint.Kind == posture.KindEntry {
			continue
		}
		if digest, err := proxy.CertificateDigest(certificates, string(endpoint.Kind)); err == nil {
			i.Certificates[endpoint.Kind] = digest
		}
	}
	return i
}

// Examine starts a pre-flight unit and waits for its verdict. One that still runs, for a change that gave
// way, begins again: it may have read what it checks before.
func (m Host) Examine(ctx context.Context, unit string) error { return m.once(ctx, "restart", unit) }

// once starts a unit that does something once, and waits for how it ends.
func (m Host) once(ctx context.Context, job, unit string) error {
	err := m.unit(ctx, job, unit)
	if err == nil {
		return nil
	}
	// Its messages are in the journal. A failed unit would show as a fault for ever.
	return errors.Join(err, m.systemd(ctx, "forget the failure of "+unit, func(ctx context.Context, conn *dbus.Conn) error {
		return conn.ResetFailedUnitContext(ctx, unit)
	}))
}

// Reload makes a server read its configuration. If the packet filter is not loaded, it is started
// together with the units that require it: systemd gave those up when the filter failed at boot,
// and nothing else would start them.
func (m Host) Reload(ctx context.Context, unit string) error {
	if unit != generation.FirewallUnit {
		return m.unit(ctx, "try-reload-or-restart", unit)
	}
	loaded := m.active(ctx, unit)
	if err := m.unit(ctx, "reload-or-restart", unit); err != nil || loaded {
		return err
	}
	return m.unit(ctx, "start", generation.ProxyUnit, generation.BansUnit, generation.MDNSUnit)
}

// AdmitSSH adds keys to the lease, if there is one.
func (m Host) AdmitSSH(keys []sshkey.Key) error {
	before, on, err := sshLease()
	if err != nil || !on {
		return err
	}
	return writeSSHLease(append(before, fingerprints(keys)...))
}

// StartSSH writes the lease.
func (m Host) StartSSH(ctx context.Context, keys []sshkey.Key) error {
	before, _, err := sshLease()
	if err != nil {
		return err
	}
	after := fingerprints(keys)
	if slices.ContainsFunc(before, func(key string) bool { return !slices.Contains(after, key) }) {
		if err := m.StopSSH(ctx); err != nil {
			return err
		}
	}
	if err := writeSSHLease(after); err != nil {
		return err
	}
	return m.unit(ctx, "start", generation.SSHUnit)
}

func fingerprints(keys []sshkey.Key) []string {
	var list []string
	for _, key := range keys {
		list = append(list, key.Fingerprint)
	}
	return list
}

// sshLease reads the lease: the fingerprints of the keys that sshd may have let in since it was started.
// Without a lease sshd does not start.
func sshLease() (keys []string, on bool, err error) {
	b, err := os.ReadFile(generation.SSHLease)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, false, nil
	case err != nil:
		return nil, false, reason.Errorf("read the lease of SSH: %w", err)
	}
	return strings.Fields(string(b)), true, nil
}

func writeSSHLease(keys []string) error {
	slices.Sort(keys)
	err := atomicfile.WriteFileAtomic(generation.SSHLease, []byte(strings.Join(slices.Compact(keys), "\n")+"\n"), 0o600)
	if err != nil {
		return reason.Errorf("write the lease of SSH: %w", err)
	}
	return nil
}

// StopSSH removes the lease first, so that nothing starts sshd again.
func (m Host) StopSSH(ctx context.Context) error {
	if err := os.Remove(generation.SSHLease); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return reason.Errorf("remove the lease of SSH: %w", err)
	}
	return m.unit(ctx, "stop", generation.SSHUnit)
}

// cutTries is how often connections are ended until none is left: a new one may have been on its
// way.
const cutTries = 5

// Cut ends the connections at a local port. Outgoing connections use other ports: the kernel
// never assigns one that a process listens on.
func (m Host) Cut(ctx context.Context, port uint16, except posture.Networks) error {
	for range cutTries {
		left, err := cut(port, except)
		if err != nil || left == 0 || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
	}
	return reason.Errorf("end the connections at port %d: some are left", port)
}

// Block inserts a rule before all others, for both families.
func (m Host) Block(ctx context.Context, port uint16) error {
	rule := []string{"INPUT", "-p", "tcp", "--dport", strconv.Itoa(int(port)), "-j", "DROP"}
	var errs []error
	for _, program := range []string{iptables, ip6tables} {
		if m.do(ctx, append([]string{program, "-w", "5", "-C"}, rule...)...) == nil {
			continue // it is already there
		}
		errs = append(errs, m.do(ctx, append([]string{program, "-w", "5", "-I"}, rule...)...))
	}
	return errors.Join(errs...)
}

// Differences asks the kernel for the packet filter and the listeners, sshd for its settings, and
// fail2ban for its limits.
func (m Host) Differences(ctx context.Context, e posture.Effective, files generation.Files) ([]string, error) {
	var all []string
	for _, ask := range []func(context.Context, posture.Effective, generation.Files) ([]string, error){
		m.filterDifferences, m.socketDifferences, m.sshDifferences, m.banDifferences,
	} {
		differences, err := ask(ctx, e, files)
		if err != nil {
			return nil, err
		}
		all = append(all, differences...)
	}
	return all, nil
}

func (m Host) filterDifferences(ctx context.Context, _ posture.Effective, files generation.Files) ([]string, error) {
	var all []string
	for program, file := range map[string]string{iptablesSave: generation.IPv4Rules, ip6tablesSave: generation.IPv6Rules} {
		live, err := m.run(ctx, program)
		if err != nil {
			return nil, err
		}
		differences, err := firewall.Diff(files[file], live, userNumber)
		if err != nil {
			return nil, err
		}
		for _, difference := range differences {
			all = append(all, filepath.Base(program)+" "+difference.String())
		}
	}
	return all, nil
}

func userNumber(name string) (int, error) {
	found, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(found.Uid)
}

// socketDifferences checks the ports that the posture decides about: open ones must have their
// listener, and no other. While NGINX is not running, nothing may listen on its ports.
func (m Host) socketDifferences(ctx context.Context, e posture.Effective, _ generation.Files) ([]string, error) {
	listening, err := listeningPorts()
	if err != nil {
		return nil, err
	}
	proxyRuns := m.active(ctx, generation.ProxyUnit)
	proxyUser, err := userNumber(generation.ProxyUser)
	if err != nil {
		return nil, err
	}
	// owners are the users who may listen on a port; none on a closed one.
	owners := map[uint16][]int{posture.EntryPort: nil}
	for _, port := range append(apply.ExceptionalPorts(), apply.OpenPorts(e)...) {
		owners[port] = nil
	}
	if proxyRuns {
		for _, port := range append(apply.OpenPorts(e), posture.EntryPort) {
			owners[port] = []int{proxyUser}
		}
	}
	if e.SSH != nil {
		owners[sshaccess.Port] = []int{0}
	}
	behind, err := m.upstreamDifferences(ctx, e, generation.ThisMachine(), listening)
	return append(compareListening(listening, owners), behind...), err
}

// compareListening compares the actual listeners with the allowed ones.
func compareListening(listening, owners map[uint16][]int) []string {
	var differences []string
	for port, users := range owners {
		found := listening[port]
		if len(users) > 0 && len(found) == 0 {
			differences = append(differences, fmt.Sprintf("nothing listens on TCP port %d", port))
		}
		for _, uid := range found {
			if !slices.Contains(users, uid) {
				differences = append(differences, fmt.Sprintf("user %d listens on TCP port %d", uid, port))
			}
		}
	}
	slices.Sort(differences)
	return differences
}

// upstreamDifferences checks who listens where NGINX expects the service behind an extra API. The
// service need not run yet, but no other may be in its place.
func (m Host) upstreamDifferences(ctx context.Context, e posture.Effective, machine generation.Machine,
	listening map[uint16][]int) ([]string, error) {
	web, err := generation.ProxyFor(e, machine)
	if err != nil {
		return nil, err
	}
	var known []int // asked for when it is needed
	var differences []string
	for _, api := range web.APIs {
		if api.Socket != "" {
			continue // in a folder that belongs to the service
		}
		port := api.Upstream.Port()
		if len(listening[port]) == 0 {
			continue
		}
		if known == nil {
			if known, err = m.serviceUsers(ctx); err != nil {
				return nil, err
			}
		}
		for _, uid := range listening[port] {
			if !slices.Contains(known, uid) {
				differences = append(differences, fmt.Sprintf("user %d listens on TCP port %d in the place of the service behind %s, and no service in %s runs as that user", uid, port, api.Name, services.OwnFile))
			}
		}
	}
	return differences, nil
}

// serviceUsers are root, and the users of the services of the appliance's builder.
func (m Host) serviceUsers(ctx context.Context) ([]int, error) {
	table, _ := services.Read(services.OwnFile) // an invalid file names no service
	users := []int{0}
	own := table[len(services.BuiltIn()):].Units()
	if len(own) == 0 {
		return users, nil
	}
	output, err := m.run(ctx, append([]string{systemctl, "show", "--property=UID", "--value"}, own...)...)
	if err != nil {
		return nil, err
	}
	for field := range strings.FieldsSeq(output) {
		if uid, err := strconv.Atoi(field); err == nil { // "[not set]" of one that does not run
			users = append(users, uid)
		}
	}
	return users, nil
}

// listeningPorts are the ports with a listener, whatever the address, with the users who listen.
func listeningPorts() (map[uint16][]int, error) {
	ports := map[uint16][]int{}
	for _, path := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // no IPv6 here
		}
		if err != nil {
			return nil, reason.Errorf("ask the kernel who listens: %w", err)
		}
		if err := parseListening(string(text), ports); err != nil {
			return nil, reason.Errorf("ask the kernel who listens: read %s: %w", path, err)
		}
	}
	return ports, nil
}

// parseListening reads /proc/net/tcp (proc(5)): "sl local_address rem_address st
// tx_queue:rx_queue tr:tm->when retrnsmt uid …", in hexadecimal except for the user; 0A is
// TCP_LISTEN.
func parseListening(text string, ports map[uint16][]int) error {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 8 || fields[3] != "0A" {
			continue
		}
		_, port, _ := strings.Cut(fields[1], ":")
		number, err := strconv.ParseUint(port, 16, 16)
		if err != nil {
			return reason.Errorf("the line %q: %w", strings.TrimSpace(line), err)
		}
		uid, err := strconv.Atoi(fields[7])
		if err != nil {
			return reason.Errorf("the line %q: %w", strings.TrimSpace(line), err)
		}
		if !slices.Contains(ports[uint16(number)], uid) {
			ports[uint16(number)] = append(ports[uint16(number)], uid)
		}
	}
	return nil
}

// sshDifferences asks sshd for its effective settings, while it is on.
func (m Host) sshDifferences(ctx context.Context, e posture.Effective, _ generation.Files) ([]string, error) {
	if e.SSH == nil {
		return nil, nil
	}
	settings, err := m.run(ctx, sshd, "-T", "-f", generation.Current(generation.SSHConfig),
		"-C", "user="+sshaccess.User+",host=localhost,addr=127.0.0.1")
	if err != nil {
		return nil, err
	}
	mismatches, err := sshaccess.Verify(settings, generation.SSHConfigFor())
	if err != nil {
		return nil, err
	}
	var differences []string
	for _, mismatch := range mismatches {
		differences = append(differences, mismatch.String())
	}
	return differences, nil
}

// banDifferences asks fail2ban for its limits. Each question takes a process, so one jail stands
// for both: they are reloaded together.
func (m Host) banDifferences(ctx context.Context, e posture.Effective, _ generation.Files) ([]string, error) {
	if !m.active(ctx, generation.BansUnit) {
		return nil, nil // it will read them when it starts
	}
	var differences []string
	for name, want := range map[string]int64{
		"maxretry": int64(e.Bans.MaxTries), "findtime": int64(e.Bans.Window / time.Second), "bantime": int64(e.Bans.BanTime / time.Second),
	} {
		got, err := m.fail2ban(ctx, "get", bruteforce.JailHandshake, name)
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(got) != strconv.FormatInt(want, 10) {
			differences = append(differences, fmt.Sprintf("fail2ban's %s is %q, not %d", name, strings.TrimSpace(got), want))
		}
	}
	return differences, nil
}

func (m Host) fail2ban(ctx context.Context, arguments ...string) (string, error) {
	return m.run(ctx, append([]string{fail2ban, "-s", bruteforce.Socket}, arguments...)...)
}

// Bans asks every jail. It lists the newest bans, and counts all.
func (m Host) Bans(ctx context.Context) (bruteforce.Bans, error) {
	var all bruteforce.Bans
	for _, jail := range bruteforce.Jails {
		list, err := m.bansOf(ctx, jail)
		if err != nil {
			return bruteforce.Bans{}, err
		}
		// The figures come before the list that makes the output too long.
		output, err := m.fail2ban(ctx, bruteforce.StatusArguments(jail)...)
		if err != nil && !errors.Is(err, errTooMuch) {
			return bruteforce.Bans{}, err
		}
		counts, err := bruteforce.ParseCounts(output)
		if err != nil {
			return bruteforce.Bans{}, err
		}
		all.List = append(all.List, list...)
		all.Current += counts.CurrentlyBanned
		all.Total += counts.TotalBanned
	}
	return all, nil
}

// bansOf reads the bans of a jail line by line: strangers decide how many there are.
func (m Host) bansOf(ctx context.Context, jail string) ([]bruteforce.Ban, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	give, err := m.place(ctx, fail2ban)
	if err != nil {
		return nil, err
	}
	defer give()
	var failure error
	list, err := bruteforce.ParseBans(jail, func(yield func(string) bool) {
		failure = m.lines(ctx, func(line []byte, _ bool) error {
			yield(string(line)) // it takes all
			return nil
		}, append([]string{fail2ban, "-s", bruteforce.Socket}, bruteforce.BansArguments(jail)...)...)
	})
	return list, cmp.Or(failure, err)
}

// Lift asks fail2ban to forget an address; it returns how many bans that ended.
func (m Host) Lift(ctx context.Context, addr netip.Addr) (bool, error) {
	output, err := m.fail2ban(ctx, bruteforce.LiftArguments(addr)...)
	if err != nil {
		return false, err
	}
	return strings.TrimSpace(output) != "0", nil
}

// Announce writes Avahi's service file, and tells Avahi, which does not notice the change by
// itself.
func (m Host) Announce(ctx context.Context, a generation.Announcement) error {
	text, err := generation.RenderAnnouncement(a)
	if err != nil {
		return err
	}
	if err := atomicfile.WriteFileAtomic(generation.AnnouncementFile, []byte(text), 0o644); err != nil {
		return err
	}
	return m.unit(ctx, "try-reload-or-restart", generation.MDNSUnit)
}

// Systemctl implements Manager.
func (m Host) Systemctl(ctx context.Context, arguments ...string) (string, error) {
	return m.run(ctx, append([]string{systemctl}, arguments...)...)
}

// Journal implements Manager.
func (m Host) Journal(ctx context.Context, receive func(line []byte, more bool) error, arguments ...string) error {
	if err := m.AwaitClosing(ctx); err != nil {
		return err
	}
	return lines(ctx, receive, append([]string{journalctl}, arguments...)...)
}
