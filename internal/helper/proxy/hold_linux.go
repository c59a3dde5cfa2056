package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Hold binds TCP ports for NGINX and never listens on them, until ctx ends. Meanwhile the kernel
// gives them to no other user, even while NGINX restarts and before an API is opened. It sets
// SO_REUSEPORT, so that NGINX, which is the same user and sets it too, can bind and listen. It
// does not set SO_REUSEADDR, which would let anybody bind a port without a listener.
//
// An address whose family this machine does not have is skipped.
//
// systemd keeps the sockets as well (FDSTORE of sd_notify(3)), so that no other process gets a
// port while an update restarts this program: the kernel frees a port with its last socket.
func Hold(ctx context.Context, addresses []netip.AddrPort) error {
	before := activation.Files(true)
	var sockets []int
	for _, address := range addresses {
		socket, err := hold(address)
		switch {
		case err != nil:
			return reason.Errorf("hold TCP port %s for NGINX: %w; another process may have it, `ss -ltnpe` shows which", address, err)
		case socket >= 0:
			sockets = append(sockets, socket)
		}
	}
	if err := tellSystemd(os.Getenv("NOTIFY_SOCKET"), sockets, before); err != nil {
		return reason.Errorf("tell systemd that the ports are held: %w", err)
	}
	for _, file := range before {
		_ = file.Close() // it was kept for this process, which now has its own
	}
	<-ctx.Done()
	return nil
}

// tellSystemd gives systemd these sockets to keep, takes back those of the previous process, and
// reports that the ports are held. Without systemd it does nothing.
func tellSystemd(socket string, sockets []int, before []*os.File) error {
	if socket == "" {
		return nil
	}
	conn, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(conn)
	systemd := &unix.SockaddrUnix{Name: socket}
	kept := map[string]bool{}
	for _, file := range before {
		kept[file.Name()] = true
	}
	name := "held-1"
	for n := 2; kept[name]; n++ {
		name = fmt.Sprintf("held-%d", n)
	}
	// FDPOLL=0: otherwise systemd would drop a socket that does not listen, as if its peer had
	// gone.
	if err := unix.Sendmsg(conn, []byte("FDSTORE=1\nFDPOLL=0\nFDNAME="+name), unix.UnixRights(sockets...), systemd, 0); err != nil {
		return err
	}
	messages := []string{"READY=1"}
	for old := range kept {
		messages = append(messages, "FDSTOREREMOVE=1\nFDNAME="+old)
	}
	for _, message := range messages {
		if err := unix.Sendto(conn, []byte(message), 0, systemd); err != nil {
			return err
		}
	}
	return nil
}

// hold returns the socket that holds an address, or -1 if this machine does not have its family.
func hold(address netip.AddrPort) (int, error) {
	family, port := unix.AF_INET, int(address.Port())
	var where unix.Sockaddr
	if address.Addr().Is4() {
		where = &unix.SockaddrInet4{Port: port, Addr: address.Addr().As4()}
	} else {
		family, where = unix.AF_INET6, &unix.SockaddrInet6{Port: port, Addr: address.Addr().As16()}
	}
	socket, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) && family == unix.AF_INET6 {
		return -1, nil
	}
	if err != nil {
		return -1, err
	}
	if family == unix.AF_INET6 {
		err = unix.SetsockoptInt(socket, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil {
		err = unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if err == nil {
		err = unix.Bind(socket, where)
	}
	if err != nil {
		_ = unix.Close(socket)
	}
	return socket, err
}
