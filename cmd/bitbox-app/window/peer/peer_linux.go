package peer

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// tables are the kernel's lists of TCP sockets (proc_net_tcp in the kernel's documentation). A
// socket for IPv6 may speak IPv4.
var tables = []string{"/proc/net/tcp", "/proc/net/tcp6"}

// overflow is the user id that the kernel shows for all users whom this process's namespace does
// not have (/proc/sys/kernel/overflowuid, user_namespaces(7)). Outside of such namespaces it is a user
// as any other, Debian's nobody.
const overflow = 65534

// ambiguous tells whether several users may look like the one of this process.
func ambiguous(user int, namespace string) bool {
	return user == overflow && strings.Join(strings.Fields(namespace), " ") != "0 0 4294967295"
}

func lookUp(client, server netip.AddrPort) Whose {
	namespace, err := os.ReadFile("/proc/self/uid_map")
	if err != nil || ambiguous(os.Geteuid(), string(namespace)) {
		return Unknown
	}
	for _, name := range tables {
		file, err := os.Open(name)
		if err != nil {
			return Unknown
		}
		uid, found, err := findProc(file, client, server)
		_ = file.Close() // it was only read
		if err != nil {
			return Unknown
		}
		if found {
			return ofUser(uid)
		}
	}
	return missing
}

// The columns of the tables: number, local address, other address, state, queues, timer,
// retransmits, user.
const (
	columnLocal, columnRemote, columnState, columnUser = 1, 2, 3, 7
	stateEstablished                                   = "01"
)

// findProc finds the user of an established connection from client to server in one of the
// tables.
func findProc(table io.Reader, client, server netip.AddrPort) (uid uint32, found bool, err error) {
	lines := bufio.NewScanner(table)
	from, to := procForms(client), procForms(server)
	for lines.Scan() {
		columns := strings.Fields(lines.Text())
		if len(columns) <= columnUser || columns[columnState] != stateEstablished || !slices.Contains(from, columns[columnLocal]) ||
			!slices.Contains(to, columns[columnRemote]) {
			continue
		}
		uid, err := strconv.ParseUint(columns[columnUser], 10, 32)
		if err != nil {
			return 0, false, fmt.Errorf("read the user in the kernel's table of connections: %w", err)
		}
		return uint32(uid), true, nil
	}
	return 0, false, lines.Err()
}

// procForms are an IPv4 address and port as the tables show them: as IPv4 and, in the table for
// IPv6, as a mapped address. Each 32 bits are one number of the machine, and its machines here
// (amd64, arm64) are little-endian.
func procForms(a netip.AddrPort) []string {
	b := a.Addr().As4()
	four := fmt.Sprintf("%02X%02X%02X%02X:%04X", b[3], b[2], b[1], b[0], a.Port())
	return []string{four, "0000000000000000FFFF0000" + four}
}

func socketOwner(fd uintptr) Whose {
	credentials, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Unknown
	}
	return ofUser(credentials.Uid)
}
