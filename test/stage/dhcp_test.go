//go:build linux

package stage_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// Messages of DHCP, RFC 2131 and RFC 2132.
const (
	dhcpDiscover, dhcpOffer, dhcpRequest, dhcpAck = 1, 2, 3, 5

	dhcpOptions = 240 // where options begin, after the magic cookie
)

// dhcpServer gives one address to every client, for a few seconds.
type dhcpServer struct {
	address netip.Addr
	seconds uint32
	// deaf: renewals are left without an answer, so that the client asks everybody.
	deaf            atomic.Bool
	grants, renewed atomic.Int32
}

func (d *dhcpServer) serve(conn net.PacketConn) {
	for buffer := make([]byte, 1500); ; {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		// A renewal comes from the address itself, by unicast.
		renewal := strings.HasPrefix(from.String(), d.address.String()+":")
		if renewal && d.deaf.Load() {
			continue
		}
		reply, err := d.answer(buffer[:n])
		if err != nil {
			continue
		}
		if renewal {
			d.renewed.Add(1)
			_, _ = conn.WriteTo(reply, from)
			continue
		}
		_, _ = conn.WriteTo(reply, &net.UDPAddr{IP: net.IPv4(10, 88, 255, 255), Port: 68})
	}
}

func (d *dhcpServer) answer(request []byte) ([]byte, error) {
	if len(request) < dhcpOptions {
		return nil, errors.New("too short")
	}
	kind := byte(0)
	for options := request[dhcpOptions:]; len(options) > 2 && options[0] != 255; options = options[2+int(options[1]):] {
		if options[0] == 53 {
			kind = options[2]
		}
		if len(options) < 2+int(options[1]) {
			return nil, errors.New("cut off")
		}
	}
	reply := make([]byte, dhcpOptions)
	copy(reply, request[:dhcpOptions])
	reply[0] = 2 // a reply
	copy(reply[16:20], d.address.AsSlice())
	answer := byte(dhcpOffer)
	switch kind {
	case dhcpDiscover:
	case dhcpRequest:
		answer = dhcpAck
		d.grants.Add(1)
	default:
		return nil, fmt.Errorf("message %d", kind)
	}
	reply = append(reply, 53, 1, answer, 54, 4, 10, 88, 1, 66, 1, 4, 255, 255, 0, 0, 51, 4)
	reply = binary.BigEndian.AppendUint32(reply, d.seconds)
	return append(reply, 255), nil
}

// A default-deny filter that starves the DHCP client makes a Base that nobody
// finds after an hour.
func TestABaseGetsAndKeepsAnAddressByDHCP(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{Prepare: func(t *testing.T, root string) {
		network := "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=ipv6\nIPv6AcceptRA=no\n"
		if err := os.WriteFile(filepath.Join(root, "etc/systemd/network/eth0.network"), []byte(network), 0o644); err != nil {
			t.Fatal(err)
		}
	}})
	s.WaitActive(generation.FirewallUnit)
	conn, err := s.Attacker(1).ListenPacket("udp4", ":67")
	if err != nil {
		t.Fatal(err)
	}
	server := &dhcpServer{address: netip.MustParseAddr("10.88.0.7"), seconds: 8}
	t.Cleanup(func() { _ = conn.Close() })
	go server.serve(conn)

	s.MustExec("systemctl", "start", "systemd-networkd.service")
	has := func() error {
		if out := s.MustExec("ip", "-4", "addr", "show", "eth0"); !strings.Contains(out, server.address.String()+"/") {
			return fmt.Errorf("it has:\n%s", out)
		}
		return nil
	}
	s.Until("the Base has the address", has)
	s.Until("the lease was renewed", func() error {
		if server.renewed.Load() < 2 {
			return fmt.Errorf("%d times", server.renewed.Load())
		}
		return has()
	})
	// The server that granted it is gone; another answers the broadcast.
	server.deaf.Store(true)
	granted := server.grants.Load()
	s.Until("the lease was granted again to a broadcast", func() error {
		if server.grants.Load() < granted+2 {
			return fmt.Errorf("%d times", server.grants.Load()-granted)
		}
		return has()
	})
}
