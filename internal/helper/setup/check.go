package setup

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/osrelease"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// needSpace is how much must be free in /etc and /var: space for the record and the first
// configuration, with a margin.
const needSpace = 16 << 20

// needed are the files of Debian that a Base needs, with the package of each.
var needed = []struct{ path, pkg string }{
	{"/usr/bin/fail2ban-server", "fail2ban"},
	{"/usr/bin/ss", "iproute2"},
	{"/usr/bin/systemctl", "systemd"},
	{"/usr/lib/nginx/modules/ngx_stream_module.so", "libnginx-mod-stream"},
	{"/usr/sbin/avahi-daemon", "avahi-daemon"},
	{"/usr/sbin/ip6tables-restore", "iptables"},
	{"/usr/sbin/iptables-restore", "iptables"},
	{"/usr/sbin/nft", "nftables"},
	{"/usr/sbin/nginx", "nginx"},
	{"/usr/sbin/sshd", "openssh-server"},
	{"/usr/sbin/usermod", "passwd"},
	{"/usr/share/zoneinfo/tzdata.zi", "tzdata"},
}

// ErrNotRoot is the error for other users.
var ErrNotRoot = reason.New("only root can set a machine up; type: sudo bitbox-base setup")

// Check checks whether the system below root can become a Base at all.
func Check(root string) error {
	release, err := os.ReadFile(filepath.Join(root, "/etc/os-release"))
	if errors.Is(err, fs.ErrNotExist) {
		release, err = os.ReadFile(filepath.Join(root, "/usr/lib/os-release"))
	}
	if err != nil {
		return reason.Errorf("a Base needs Debian %s, and %s does not say that this is one: %w", osrelease.Release, root, err)
	}
	if err := osrelease.Parse(string(release)).Suits(); err != nil {
		return err
	}
	for _, n := range needed {
		if _, err := os.Stat(filepath.Join(root, n.path)); err != nil {
			return reason.Errorf("%s is missing; type: apt-get install %s", n.path, n.pkg)
		}
	}
	if root == "/" && !Booted() {
		return reason.New("systemd is not running here, and the Base's services need it; --root DIR sets up an image")
	}
	for _, directory := range []string{"/etc", "/var/lib"} {
		var s unix.Statfs_t
		if err := unix.Statfs(filepath.Join(root, directory), &s); err != nil {
			return reason.Errorf("look for free space in %s: %w", directory, err)
		}
		if free := s.Bavail * uint64(s.Bsize); free < needSpace {
			return reason.Errorf("only %d MiB are free in %s, and setup needs %d; make room and try again", free>>20, directory,
				needSpace>>20)
		}
		if s.Flags&unix.ST_RDONLY != 0 {
			return reason.Errorf("%s is read-only; set up an image where it is built", directory)
		}
	}
	return nil
}

// CheckEntry checks whether the entry's port is free; on a Base it is not.
func CheckEntry() error {
	for _, network := range []string{"tcp4", "tcp6"} {
		listener, err := net.Listen(network, ":"+strconv.Itoa(posture.EntryPort))
		if errors.Is(err, unix.EADDRINUSE) {
			return reason.Errorf("another program listens on TCP port %d, the Base's only one; `ss -ltnp` shows which", posture.EntryPort)
		}
		if err == nil { // a machine may have no IPv6
			_ = listener.Close()
		}
	}
	return nil
}

// ErrOverSSH is why a user who is logged in by SSH may not set up.
var ErrOverSSH = reason.New("setup would cut you off: you are logged in by SSH, which is off on a Base, and there is no key with a lease; set it up at the machine's own screen and keyboard")

// OverSSH tells whether the user of this program is logged in by SSH, and would be cut off.
// Neither sudo nor a terminal that outlives its connection hides it.
func OverSSH(environ []string) bool {
	for _, variable := range environ {
		if strings.HasPrefix(variable, "SSH_CONNECTION=") || strings.HasPrefix(variable, "SSH_CLIENT=") {
			return true
		}
	}
	for pid := os.Getpid(); pid > 1; {
		name, parent, err := ancestor(pid)
		if err != nil {
			break
		}
		if strings.HasPrefix(name, "sshd") {
			return true
		}
		pid = parent
	}
	// systemd-logind records for each session whether it is a remote one.
	group, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return false
	}
	_, session, found := strings.Cut(string(group), "/session-")
	session, _, ended := strings.Cut(session, ".scope")
	if !found || !ended || strings.ContainsAny(session, "/\n") {
		return false
	}
	text, err := os.ReadFile("/run/systemd/sessions/" + session)
	return err == nil && osrelease.Value(string(text), "REMOTE") == "1"
}

// ancestor reads a process's name and its parent from /proc/PID/stat (proc(5)).
func ancestor(pid int) (name string, parent int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, err
	}
	begin, end := strings.IndexByte(string(text), '('), strings.LastIndexByte(string(text), ')')
	if begin < 0 || end < begin {
		return "", 0, reason.Errorf("read /proc/%d/stat: its format is unknown", pid)
	}
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) < 2 {
		return "", 0, reason.Errorf("read /proc/%d/stat: its format is unknown", pid)
	}
	parent, err = strconv.Atoi(fields[1])
	return string(text[begin+1 : end]), parent, err
}
