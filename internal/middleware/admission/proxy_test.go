package admission

import (
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
)

func TestAProxyHeaderGivesTheClientsAddress(t *testing.T) {
	for line, want := range map[string][2]string{
		"PROXY TCP4 192.0.2.1 198.51.100.1 51234 8845\r\n":               {"192.0.2.1", "198.51.100.1"},
		"PROXY TCP6 2001:db8::1 2001:db8::2 51234 8845\r\n":              {"2001:db8::1", "2001:db8::2"},
		"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.1 1 8845\r\n":     {"192.0.2.1", "198.51.100.1"},
		"PROXY TCP4 192.0.2.1 2001:db8::2 51234 8845\r\n":                {"192.0.2.1", "2001:db8::2"},
		"PROXY TCP6 2001:db8::1 198.51.100.1 51234 8845\r\n":             {"2001:db8::1", "198.51.100.1"},
		"PROXY TCP4 192.0.2.1 198.51.100.1 0 65535\r\nPROXY TCP4 … \r\n": {"192.0.2.1", "198.51.100.1"},
	} {
		rest := strings.NewReader(line)
		source, destination, err := readProxy(rest)
		if err != nil || source != netip.MustParseAddr(want[0]) || destination != netip.MustParseAddr(want[1]) {
			t.Errorf("readProxy(%q) = %v, %v, %v; want %s", line, source, destination, err, want)
		}
		if after := line[strings.Index(line, "\n")+1:]; rest.Len() != len(after) {
			t.Errorf("readProxy(%q) left %d bytes, not the %d after the header", line, rest.Len(), len(after))
		}
	}
}

func TestAnInvalidProxyHeaderIsRefused(t *testing.T) {
	for _, line := range []string{
		"\r\n",
		"PROXY\r\n",
		"PROXY UNKNOWN\r\n",
		"PROXY UNKNOWN 192.0.2.1 198.51.100.1 1 2\r\n",
		"PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n",
		"PROXY TCP4 192.0.2.1 198.51.100.1 1 2 \r\n",
		"PROXY TCP4  192.0.2.1 198.51.100.1 1 2\r\n",
		"PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n",
		"PROXY TCP4 192.0.2.1 198.51.100.1 1 65536\r\n",
		"PROXY TCP4 192.0.2.1 198.51.100.1 -1 2\r\n",
		"PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n",
		"PROXY TCP4 2001:db8::1 198.51.100.1 1 2\r\n",
		"PROXY TCP4 192.0.2.1 unix: 1 2\r\n",
		"PROXY TCP4 unix: 198.51.100.1 1 2\r\n",
		"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n",
		"PROXY TCP5 192.0.2.1 198.51.100.1 1 2\r\n",
		"proxy TCP4 192.0.2.1 198.51.100.1 1 2\r\n",
		"GET / HTTP/1.1\r\n",
		"PROXY TCP4 " + strings.Repeat("1", 200) + "\r\n",
	} {
		if addr, _, err := readProxy(strings.NewReader(line)); !errors.Is(err, errProxy) {
			t.Errorf("readProxy(%q) = %v, %v; want errProxy", line, addr, err)
		}
	}
	if _, _, err := readProxy(strings.NewReader("PROXY TCP4 192.0.2.1")); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a header that ends early: %v; want an end of file", err)
	}
}

func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 198.51.100.1 51234 8845\r\n"))
	f.Add([]byte("PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 51234 8845\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		addr, _, err := readProxy(strings.NewReader(string(line)))
		if err != nil {
			return
		}
		if !addr.IsValid() || addr.Is4In6() || addr.Zone() != "" {
			t.Fatalf("readProxy(%q) = %v: not an address that can be limited and banned", line, addr)
		}
	})
}
