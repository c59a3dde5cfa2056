package ipc

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// peerOf asks the kernel who connected (SO_PEERCRED, unix(7)).
func peerOf(conn *net.UnixConn) (Peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var credentials *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		credentials, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, failed); err != nil {
		return Peer{}, reason.Errorf("ask for the peer's credentials: %w", err)
	}
	return Peer{UID: credentials.Uid, GID: credentials.Gid, PID: credentials.Pid}, nil
}

// isTemporary tells whether accepting may work again once others have released a resource.
func isTemporary(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOBUFS) ||
		errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.ECONNABORTED)
}
