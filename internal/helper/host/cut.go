package host

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/wallets"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// The kernel's interface for sockets (sock_diag(7), linux/inet_diag.h).
const (
	sockDiagByFamily = 20
	sockDestroy      = 21
	// diagRequest is the length of a struct inet_diag_req_v2:
	//
	//	family (1) | protocol (1) | extensions (1) | 0 (1) | states (4) | id (48)
	//
	// and the id begins with the local port (2, big endian).
	diagRequest = 56
	diagID      = 48
	// diagMessage is the length of a struct inet_diag_msg: family, state, timer and
	// retransmissions (1 each), the id, and 20 bytes that are not used here.
	diagMessage = 4 + diagID + 20

	established = 1 << 1  // TCP_ESTABLISHED
	listening   = 1 << 10 // TCP_LISTEN
	// connected are all states except closed and listening.
	connected = (1<<13 - 1) &^ (1<<7 | 1<<10)

	// netlinkWait is how long to wait for the kernel; it answers at once.
	netlinkWait = 5 * time.Second
)

// diag is a socket to the kernel's socket monitor.
type diag int

func openDiag() (diag, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, err
	}
	wait := unix.NsecToTimeval(netlinkWait.Nanoseconds())
	return diag(fd), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)
}

func (d diag) close() { _ = unix.Close(int(d)) }

// ask sends a request and gives each message of the answer to receive.
func (d diag) ask(kind uint16, flags int, body []byte, receive func([]byte)) error {
	message := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	message = binary.NativeEndian.AppendUint16(message, kind)
	message = binary.NativeEndian.AppendUint16(message, uint16(unix.NLM_F_REQUEST|flags))
	message = append(binary.NativeEndian.AppendUint64(message, 0), body...) // number and sender
	if err := unix.Sendto(int(d), message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buffer := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(int(d), buffer, 0)
		if err != nil {
			return err
		}
		answers, err := syscall.ParseNetlinkMessage(buffer[:n])
		if err != nil {
			return err
		}
		for _, answer := range answers {
			switch answer.Header.Type {
			case unix.NLMSG_DONE:
				return nil
			case unix.NLMSG_ERROR:
				if len(answer.Data) < 4 {
					return reason.New("the kernel's answer is cut off")
				}
				if code := int32(binary.NativeEndian.Uint32(answer.Data)); code != 0 {
					return syscall.Errno(-code)
				}
				return nil
			default:
				receive(answer.Data)
			}
		}
	}
}

func diagBody(family uint8, states uint32, id []byte) []byte {
	body := make([]byte, diagRequest)
	body[0], body[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(body[4:], states)
	copy(body[8:], id)
	return body
}

// sockets returns the ids of TCP sockets at a local port that are in one of the states.
func (d diag) sockets(family uint8, port uint16, states uint32) (ids [][]byte, err error) {
	at := binary.BigEndian.AppendUint16(nil, port)
	err = d.ask(sockDiagByFamily, unix.NLM_F_DUMP, diagBody(family, states, at), func(b []byte) {
		// An older kernel ignores the port and returns all sockets.
		if len(b) >= diagMessage && binary.BigEndian.Uint16(b[4:]) == port {
			ids = append(ids, append([]byte(nil), b[4:4+diagID]...))
		}
	})
	return ids, err
}

// peer is the remote address in the id of a socket, which the kernel gives as: local port (2), remote
// port (2), local address (16), remote address (16), interface (4), and cookie (8). An IPv4 address
// takes the first 4 bytes.
func peer(family uint8, id []byte) netip.AddrPort {
	remote := id[20:36]
	if family == unix.AF_INET {
		remote = remote[:4]
	}
	address, _ := netip.AddrFromSlice(remote)
	return netip.AddrPortFrom(address.Unmap(), binary.BigEndian.Uint16(id[2:]))
}

// local is the local address in the id of a socket.
func local(family uint8, id []byte) netip.Addr {
	own := id[4:20]
	if family == unix.AF_INET {
		own = own[:4]
	}
	address, _ := netip.AddrFromSlice(own)
	return address.Unmap()
}

// each calls do with each TCP socket at a local port that is in one of the states.
func each(port uint16, states uint32, do func(family uint8, id []byte)) error {
	d, err := openDiag()
	if err != nil {
		return err
	}
	defer d.close()
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		ids, err := d.sockets(family, port, states)
		if err != nil {
			return err
		}
		for _, id := range ids {
			do(family, id)
		}
	}
	return nil
}

// Connections implements wallets.Sockets.
func (Host) Connections(port uint16) ([]wallets.Connection, error) {
	var list []wallets.Connection
	err := each(port, established, func(family uint8, id []byte) {
		list = append(list, wallets.Connection{Cookie: binary.NativeEndian.Uint64(id[40:]), Peer: peer(family, id)})
	})
	return list, err
}

// Listens implements wallets.Sockets.
func (Host) Listens(upstream generation.Upstream) (bool, error) {
	if upstream.Socket != "" {
		text, err := os.ReadFile("/proc/net/unix")
		return listensAt(string(text), upstream.Socket), err
	}
	found := false
	err := each(upstream.Address.Port(), listening, func(family uint8, id []byte) {
		own := local(family, id)
		found = found || own == upstream.Address.Addr() || own.IsUnspecified()
	})
	return found, err
}

// listensAt looks for a unix socket that takes connections in the kernel's list: each line has seven
// columns, of which the fourth is the flags, and the path.
func listensAt(list, path string) bool {
	const accepts = "00010000" // __SO_ACCEPTCON
	for line := range strings.Lines(list) {
		if fields := strings.Fields(line); len(fields) == 8 && fields[3] == accepts && fields[7] == path {
			return true
		}
	}
	return false
}

// cut ends the TCP connections at a local port, once, except for those from some networks, and
// returns how many are left.
func cut(port uint16, except posture.Networks) (left int, err error) {
	d, err := openDiag()
	if err != nil {
		return 0, reason.Errorf("ask the kernel for its connections: %w", err)
	}
	defer d.close()
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		ids, err := d.sockets(family, port, connected)
		if err != nil {
			return 0, reason.Errorf("ask the kernel for the connections at port %d: %w", port, err)
		}
		stays := func(id []byte) bool { return len(except) > 0 && except.Contains(peer(family, id).Addr()) }
		for _, id := range slices.DeleteFunc(ids, stays) {
			err := d.ask(sockDestroy, unix.NLM_F_ACK, diagBody(family, 0, id), func([]byte) {})
			if err != nil && !errors.Is(err, syscall.ENOENT) { // it has ended by itself
				return 0, reason.Errorf("have the kernel end a connection at port %d: %w", port, err)
			}
		}
		if ids, err = d.sockets(family, port, established); err != nil {
			return 0, reason.Errorf("ask the kernel for the connections at port %d: %w", port, err)
		}
		left += len(slices.DeleteFunc(ids, stays))
	}
	return left, nil
}
