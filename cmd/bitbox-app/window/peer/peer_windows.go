package peer

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/windows"
)

var getExtendedTCPTable = windows.NewLazySystemDLL("iphlpapi.dll").NewProc("GetExtendedTcpTable")

const (
	// ownerPIDConnections is TCP_TABLE_OWNER_PID_CONNECTIONS.
	ownerPIDConnections = 4
	// longestTable bounds the answer, in bytes; 100,000 connections need 6 MB.
	longestTable = 16 << 20
	// peerPID is SIO_AF_UNIX_GETPEERPID (afunix.h): the process at the other end of a unix socket.
	peerPID = 0x58000100
)

func lookUp(client, server netip.AddrPort) Whose {
	for _, table := range []struct {
		family uintptr
		layout tcpTable
	}{{windows.AF_INET, tcpTable4}, {windows.AF_INET6, tcpTable6}} {
		content, err := readTable(table.family)
		if err != nil {
			return Unknown
		}
		process, found, err := table.layout.find(content, client, server)
		if err != nil {
			return Unknown
		}
		if found {
			return ofProcess(process)
		}
	}
	return missing
}

// readTable asks for a table until it fits: it may grow between two calls.
func readTable(family uintptr) ([]byte, error) {
	size := uint32(64 << 10)
	for size <= longestTable {
		content := make([]byte, size)
		code, _, _ := getExtendedTCPTable.Call(uintptr(unsafe.Pointer(&content[0])), uintptr(unsafe.Pointer(&size)), 0, family,
			ownerPIDConnections, 0)
		switch err := windows.Errno(code); err {
		case windows.ERROR_SUCCESS:
			return content, nil
		case windows.ERROR_INSUFFICIENT_BUFFER:
			size += size / 4
		default:
			return nil, err
		}
	}
	return nil, errors.New("the kernel's table of connections is too long")
}

// ofProcess compares the user of a process with that of this process. Windows refuses the token
// of another user's process.
func ofProcess(id uint32) Whose {
	process, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, id)
	if err != nil {
		return Other
	}
	defer func() { _ = windows.CloseHandle(process) }()
	var token windows.Token
	if err := windows.OpenProcessToken(process, windows.TOKEN_QUERY, &token); err != nil {
		return Other
	}
	defer func() { _ = token.Close() }()
	theirs, err := token.GetTokenUser()
	if err != nil {
		return Other
	}
	own, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return Unknown
	}
	if !theirs.User.Sid.Equals(own.User.Sid) {
		return Other
	}
	return Own
}

func socketOwner(fd uintptr) Whose {
	var id [4]byte
	var length uint32
	if err := windows.WSAIoctl(windows.Handle(fd), peerPID, nil, 0, &id[0], uint32(len(id)), &length, nil, 0); err != nil {
		return Unknown
	}
	return ofProcess(binary.LittleEndian.Uint32(id[:]))
}

// connected tells whether a socket still has another end (getpeername: WSAENOTCONN).
func connected(fd uintptr) bool {
	_, err := windows.Getpeername(windows.Handle(fd))
	return err == nil
}
