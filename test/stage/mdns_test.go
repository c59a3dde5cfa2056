//go:build linux

package stage_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// browser listens to the mDNS group on an attacker's machine.
type browser struct {
	conn  net.PacketConn
	group net.Addr
}

func newBrowser(t *testing.T, a *stage.Attacker, six bool) *browser {
	t.Helper()
	network, group := "udp4", &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 5353}
	if six {
		network, group = "udp6", &net.UDPAddr{IP: net.ParseIP("ff02::fb"), Port: 5353}
	}
	conn, err := a.ListenPacket(network, ":5353")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	link, err := a.Interface()
	if err != nil {
		t.Fatal(err)
	}
	if six {
		p := ipv6.NewPacketConn(conn)
		err = errors.Join(p.JoinGroup(link, group), p.SetMulticastInterface(link), p.SetMulticastHopLimit(255))
	} else {
		p := ipv4.NewPacketConn(conn)
		err = errors.Join(p.JoinGroup(link, group), p.SetMulticastInterface(link), p.SetMulticastTTL(255))
	}
	if err != nil {
		t.Fatal(err)
	}
	return &browser{conn, group}
}

// find asks for Bases until one with the name and the text answers.
func (b *browser) find(name, text string) error {
	query := dnsmessage.Message{Questions: []dnsmessage.Question{{
		Name: dnsmessage.MustNewName("_bitboxbase._tcp.local."), Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET,
	}}}
	packet, err := query.Pack()
	if err != nil {
		return err
	}
	if _, err := b.conn.WriteTo(packet, b.group); err != nil {
		return err
	}
	if err := b.conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	heard := []string{}
	for buffer := make([]byte, 9000); ; {
		n, _, err := b.conn.ReadFrom(buffer)
		if err != nil {
			return fmt.Errorf("heard only %q: %w", heard, err)
		}
		var message dnsmessage.Message
		if err := message.Unpack(buffer[:n]); err != nil || !message.Response {
			continue
		}
		named, told := false, false
		for _, resource := range append(message.Answers, message.Additionals...) {
			heard = append(heard, resource.Body.GoString())
			switch body := resource.Body.(type) {
			case *dnsmessage.PTRResource:
				named = named || strings.HasPrefix(body.PTR.String(), name+".") && resource.Header.TTL > 0
			case *dnsmessage.TXTResource:
				told = told || strings.Contains(strings.Join(body.TXT, " "), text)
			}
		}
		if named && told {
			return nil
		}
	}
}

// announce does what the system helper does when it is told what to announce.
func announce(t *testing.T, s *stage.Stage, name, text string) {
	t.Helper()
	file, err := generation.RenderAnnouncement(generation.Announcement{Name: name, Port: posture.EntryPort, TXT: []string{text}})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.ExecInput(file, "tee", generation.AnnouncementFile); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.MustExec("systemctl", "reload", generation.MDNSUnit)
}

func TestTheBaseAnnouncesItself(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{})
	s.WaitActive(generation.MDNSUnit)
	a := s.Attacker(1)
	v4, v6 := newBrowser(t, a, false), newBrowser(t, a, true)
	hears := func(b *browser, name, text string) {
		t.Helper()
		begun := time.Now()
		s.Until(fmt.Sprintf("%s with %s is announced to %s", name, text, b.group), func() error { return b.find(name, text) })
		t.Logf("%s heard %s with %s after %v", b.group, name, text, time.Since(begun).Round(time.Millisecond))
	}
	announce(t, s, "First Base", "pairing=closed")
	hears(v4, "First Base", "pairing=closed")
	hears(v6, "First Base", "pairing=closed")
	announce(t, s, "First Base", "pairing=open")
	hears(v4, "First Base", "pairing=open")
	announce(t, s, "Renamed Base", "pairing=open")
	hears(v4, "Renamed Base", "pairing=open")
	hears(v6, "Renamed Base", "pairing=open")
	// Avahi takes U+FFFD, in which some programs see damaged UTF-8.
	announce(t, s, "Renamed \ufffd Base", "pairing=open")
	hears(v4, "Renamed \ufffd Base", "pairing=open")
	if err := v4.find("First Base", "pairing=open"); err == nil {
		t.Error("the old name is still announced")
	}
	// No further port for wide-area names.
	if out := sockets(s); strings.Count(out, "udp") != 2 {
		t.Errorf("UDP sockets beside mDNS's two:\n%s", out)
	}
}

// askAvahi asks Avahi by its socket for the address of a name, as it resolves names in the home
// network for any program that can reach it.
const askAvahi = `
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(30)
s.connect("/run/avahi-daemon/socket")
s.send(b"RESOLVE-HOSTNAME-IPV4 " + socket.gethostname().encode() + b".local\n")
print(s.recv(512).decode())
`

// The attack: a user who may not go out has Avahi ask the home network, in whose names anything can
// be carried out. The broken variant is a folder that everybody may enter, systemd's default.
func TestNoUserHasAvahiAskTheHomeNetwork(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{})
	s.WaitActive(generation.MDNSUnit)
	attack := func() (answer string, err error) {
		return s.ExecInput(askAvahi, "setpriv", "--reuid="+sshaccess.User, "--regid="+sshaccess.User, "--clear-groups", "python3", "-")
	}
	s.Until("Avahi has its socket", func() error {
		_, err := s.Exec("test", "-S", "/run/avahi-daemon/socket")
		return err
	})
	if answer, err := attack(); err == nil || !strings.Contains(answer, "PermissionError") {
		t.Errorf("an ordinary user is answered %q (%v)", answer, err)
	}
	s.MustExec("chmod", "0755", "/run/avahi-daemon")
	answer, err := attack()
	if err != nil || !strings.HasPrefix(answer, "+ ") {
		t.Errorf("in the broken variant it is answered %q (%v), so this test shows nothing", answer, err)
	}
}
