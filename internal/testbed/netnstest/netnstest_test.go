package netnstest_test

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func TestThePrivateNetworkHasItsOwnInterfacesOnly(t *testing.T) {
	netnstest.Require(t)
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		if i.Name == "lo" || i.Name == netnstest.Interface {
			continue
		}
		// Tunnels that the kernel gives to each namespace, and the far end.
		if addresses, err := i.Addrs(); err != nil || len(addresses) > 0 {
			t.Errorf("%s has addresses %v (%v)", i.Name, addresses, err)
		}
	}
	lan, err := net.InterfaceByName(netnstest.Interface)
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := lan.Addrs()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, a := range addresses {
		all = append(all, a.String())
	}
	for _, want := range []string{netnstest.IPv4.String(), netnstest.IPv6.String()} {
		if !strings.Contains(strings.Join(all, " "), want) {
			t.Errorf("%s is missing among %v", want, all)
		}
	}
	if lan.Flags&net.FlagMulticast == 0 {
		t.Error("no multicast")
	}
}

func TestNothingOutsideIsReached(t *testing.T) {
	netnstest.Require(t)
	connection, err := net.DialTimeout("tcp", "192.0.2.1:9", time.Second)
	if err == nil {
		connection.Close()
		t.Fatal("connected")
	}
	if !strings.Contains(err.Error(), "unreachable") {
		t.Fatalf("%v, want: unreachable at once", err)
	}
}

// A program that is told it is inside, but is not, must not touch the machine's
// real interfaces.
func TestSetUpIsRefusedOutside(t *testing.T) {
	netnstest.Require(t)
	here, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("BITBOX_NETNSTEST_OUTSIDE", here)
	if _, done, err := netnstest.Enter(); err == nil || done {
		t.Fatalf("done %v, error %v", done, err)
	}
}
