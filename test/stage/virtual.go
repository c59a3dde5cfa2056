//go:build linux

package stage

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// A Base in a virtual machine is on the same network as one in a container, but it
// asks for its addresses, as any machine does:
//
//	10.88.0.2                by DHCP
//	fd88::5054:ff:fe88:2     from the router's announcement, by its hardware address
const (
	virtualHardware = "52:54:00:88:00:02"
	routerV4        = "10.88.255.1"
	routerV6        = "fd88::1"
)

var virtualV6 = netip.MustParseAddr("fd88::5054:ff:fe88:2")

// Network returns a stage that has a network with a router, and no Base of its own:
// that runs in a virtual machine, see Device.
func Network(t *testing.T, tools ...string) *Stage {
	t.Helper()
	NeedRoot(t, append([]string{"dnsmasq", "sysctl"}, tools...)...)
	r, err := newRun(fmt.Sprintf("%d-%d", os.Getpid(), counter.Add(1)))
	if err != nil {
		t.Fatalf("prepare the stage: %v", err)
	}
	s := &Stage{t: t, run: r, V4: baseV4, V6: virtualV6, attackers: map[int]*Attacker{}}
	t.Cleanup(func() {
		if err := r.clear(); err != nil {
			t.Errorf("clear the stage up: %v", err)
		}
	})
	if err := s.buildRouter(); err != nil {
		t.Fatalf("make the network of the stage: %v", err)
	}
	return s
}

// buildRouter makes a network with a router that gives addresses.
func (s *Stage) buildRouter() error {
	lan := s.run.lan()
	if err := s.run.buildLAN(lan); err != nil {
		return err
	}
	for _, command := range [][]string{
		{"-n", lan, "addr", "add", routerV4 + v4Bits, "dev", "lan"},
		{"-n", lan, "addr", "add", routerV6 + v6Bits, "dev", "lan", "nodad"},
		{"-n", lan, "tuntap", "add", "machine", "mode", "tap"},
		{"-n", lan, "link", "set", "machine", "master", "lan", "up"},
		// The machine believes that only its own /64 is near: the router passes on.
		{"netns", "exec", lan, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"},
	} {
		if err := ip(command...); err != nil {
			return err
		}
	}
	_, err := s.RunBeside(exec.Command("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--port=0",
		"--interface=lan", "--bind-interfaces", "--user=root", "--pid-file=", "--dhcp-leasefile=/dev/null", "--log-facility=-",
		"--dhcp-range="+baseV4.String()+","+baseV4.String()+",255.255.0.0,1h", "--dhcp-host="+virtualHardware+","+baseV4.String(),
		"--enable-ra", "--dhcp-range=fd88::,ra-only,64"))
	return err
}

// Device returns QEMU's arguments for a network card on the stage's network.
func (s *Stage) Device() []string {
	return []string{"-netdev", "tap,id=lan,ifname=machine,script=no,downscript=no", "-device", "virtio-net-pci,netdev=lan,mac=" +
		virtualHardware}
}

// RunBeside starts one of the host's programs in the network of the stage's router. It
// ends with the test at the latest; ended is closed when it has.
func (s *Stage) RunBeside(command *exec.Cmd) (ended <-chan struct{}, err error) {
	argv := append([]string{"ip", "netns", "exec", s.run.lan()}, command.Args...)
	path, err := exec.LookPath("ip")
	if err != nil {
		return nil, err
	}
	command.Path, command.Args = path, argv
	if command.SysProcAttr == nil {
		command.SysProcAttr = &syscall.SysProcAttr{}
	}
	command.SysProcAttr.Setpgid = true
	ended, err = s.run.startInCgroup(command)
	if err != nil {
		return nil, err
	}
	select {
	case <-ended:
		return nil, errors.New("it ended at once")
	case <-time.After(100 * time.Millisecond):
		return ended, nil
	}
}
