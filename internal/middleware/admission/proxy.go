package admission

import (
	"io"
	"net/netip"
	"strconv"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// maxProxyLine is the longest PROXY header of version 1 with its CR LF: 107 bytes,
// by section 2.1 of HAProxy's proxy-protocol.txt.
const maxProxyLine = 107

// errProxy is wrapped by every refusal of a PROXY header.
var errProxy = reason.New("not a PROXY header of version 1")

// readProxy reads the PROXY header that NGINX puts before a connection, and returns the client's
// address and the Base's address that it connected to. It does not read a byte more than the
// header, so the connection can be passed on.
//
//	PROXY TCP4 192.0.2.1 198.51.100.1 51234 8845\r\n
//
// It reads byte by byte. That costs some 50 µs per connection, and no buffer has to follow the
// connection.
func readProxy(r io.Reader) (source, destination netip.Addr, err error) {
	line := make([]byte, 0, maxProxyLine)
	var one [1]byte
	for len(line) < maxProxyLine {
		if _, err := io.ReadFull(r, one[:]); err != nil {
			return netip.Addr{}, netip.Addr{}, reason.Errorf("read the PROXY header: %w", err)
		}
		line = append(line, one[0])
		if one[0] == '\n' {
			return parseProxy(line)
		}
	}
	return netip.Addr{}, netip.Addr{}, reason.Errorf("%w: no end of line within %d bytes", errProxy, maxProxyLine)
}

// parseProxy parses a whole header line, including CR LF. An IPv4 address written as IPv6
// (::ffff:192.0.2.1) is returned as IPv4. The family of the destination may differ from the
// source's: NGINX does that on a socket that serves both. UNKNOWN is refused, because without an
// address there is no limit and no ban.
func parseProxy(line []byte) (source, destination netip.Addr, err error) {
	fail := func(err error) (netip.Addr, netip.Addr, error) {
		return netip.Addr{}, netip.Addr{}, reason.Errorf("%w: %w", errProxy, err)
	}
	text, ended := strings.CutSuffix(string(line), "\r\n")
	if !ended {
		return fail(reason.New("it does not end with CR LF"))
	}
	fields := strings.Split(text, " ")
	if len(fields) != 6 || fields[0] != "PROXY" {
		return fail(reason.New("PROXY, family, two addresses and two ports are needed"))
	}
	if fields[1] != "TCP4" && fields[1] != "TCP6" {
		return fail(reason.New("the family is neither TCP4 nor TCP6"))
	}
	if source, err = parseProxyAddress(fields[2]); err != nil {
		return fail(reason.Errorf("source: %w", err))
	}
	if fields[1] == "TCP4" && !source.Is4() {
		return fail(reason.New("TCP4 with a source that is not IPv4"))
	}
	if destination, err = parseProxyAddress(fields[3]); err != nil {
		return fail(reason.Errorf("destination: %w", err))
	}
	for _, port := range fields[4:] {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return fail(reason.New("a port is not a number from 0 to 65535"))
		}
	}
	return source, destination, nil
}

// parseProxyAddress parses one address. A zone is refused: NGINX writes none, and a ban cannot
// name it.
func parseProxyAddress(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, reason.New("it is no IP address")
	}
	if addr.Zone() != "" {
		return netip.Addr{}, reason.New("it has a zone")
	}
	return addr.Unmap(), nil
}
