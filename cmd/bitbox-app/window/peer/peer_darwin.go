package peer

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

func lookUp(client, server netip.AddrPort) Whose {
	list, err := unix.SysctlRaw("net.inet.tcp.pcblist_n")
	if err != nil {
		return Unknown
	}
	uid, found, err := findPCB(list, client, server)
	switch {
	case err != nil:
		return Unknown
	case !found:
		return missing
	}
	return ofUser(uid)
}

func socketOwner(fd uintptr) Whose {
	credentials, err := unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return Unknown
	}
	return ofUser(credentials.Uid)
}
