package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Hold binds TCP ports for NGINX and never listens on them, until ctx ends: meanwhile the
// kernel lets no other user have them, also while NGINX restarts and before an API is
// opened. It sets SO_REUSEPORT, so that NGINX, which is the same user and sets it too, can
// bind and listen; and not SO_REUSEADDR, with which anybody could bind what nobody listens on.
//
// An address of a family that this machine does not have is left out. When it has all of
// them it tells systemd so (sd_notify(3)).
func Hold(ctx context.Context, addresses []netip.AddrPort) error {
	for _, address := range addresses {
		if err := hold(address); err != nil {
			return fmt.Errorf("hold TCP port %s for NGINX: %w; somebody may have it, `ss -ltnpe` shows who", address, err)
		}
	}
	if err := tellReady(os.Getenv("NOTIFY_SOCKET")); err != nil {
		return fmt.Errorf("tell systemd that the ports are held: %w", err)
	}
	<-ctx.Done()
	return nil
}

// tellReady does nothing where nobody wants to know.
func tellReady(socket string) error {
	if socket == "" {
		return nil
	}
	conn, err := net.Dial("unixgram", socket)
	if err != nil {
		return err
	}
	_, err = conn.Write([]byte("READY=1"))
	return errors.Join(err, conn.Close())
}

func hold(address netip.AddrPort) error {
	family, port := unix.AF_INET, int(address.Port())
	var where unix.Sockaddr
	if address.Addr().Is4() {
		where = &unix.SockaddrInet4{Port: port, Addr: address.Addr().As4()}
	} else {
		family, where = unix.AF_INET6, &unix.SockaddrInet6{Port: port, Addr: address.Addr().As16()}
	}
	socket, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) && family == unix.AF_INET6 {
		return nil
	}
	if err != nil {
		return err
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
	return err
}
