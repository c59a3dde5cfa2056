package audit

import (
	"regexp"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/listeners"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/units"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

func addSocket(line string) func(*testing.T, *fake) {
	return func(t *testing.T, f *fake) {
		f.replace(t, "udp UNCONN", line+"\nudp UNCONN", listeners.Command...)
	}
}

func TestEachUnexpectedListenerIsFound(t *testing.T) {
	find(t, map[string]attack{
		"TCP":           {addSocket("tcp LISTEN 0 5 0.0.0.0:4444 0.0.0.0:* cgroup:/system.slice/rogue.service"), []string{idListener}},
		"IPv6 only":     {addSocket("tcp LISTEN 0 5 [::]:4444 [::]:* cgroup:/system.slice/rogue.service"), []string{idListener}},
		"one address":   {addSocket("tcp LISTEN 0 5 10.0.2.15:4444 0.0.0.0:* cgroup:/user.slice"), []string{idListener}},
		"both families": {addSocket("tcp LISTEN 0 5 *:4444 *:* cgroup:/user.slice"), []string{idListener}},
		"UDP":           {addSocket("udp UNCONN 0 0 0.0.0.0:4444 0.0.0.0:* cgroup:/system.slice/rogue.service"), []string{idListener}},
		"SCTP":          {addSocket("sctp LISTEN 0 5 *:4444 *:*"), []string{idListener}},
		"no unit known": {addSocket("tcp LISTEN 0 5 0.0.0.0:4444 0.0.0.0:*"), []string{idListener}},
		"sshd without lease": {addSocket("tcp LISTEN 0 128 0.0.0.0:22 0.0.0.0:* cgroup:/system.slice/bitbox-base-ssh.service"),
			[]string{idListener}},
		"the inner port": {addSocket("tcp LISTEN 0 128 0.0.0.0:8846 0.0.0.0:* cgroup:/system.slice/bitbox-base-nginx.service"),
			[]string{idListener}},
		"the port of mDNS": {addSocket("udp UNCONN 0 0 0.0.0.0:5353 0.0.0.0:* cgroup:/system.slice/rogue.service"), []string{idListener}},
		"a resolver's name": {addSocket("udp UNCONN 0 0 0.0.0.0:999 0.0.0.0:* cgroup:/user.slice/systemd-resolved.service.scope"),
			[]string{idListener}},
		"loopback": {addSocket("tcp LISTEN 0 5 127.0.0.1:4444 0.0.0.0:* cgroup:/system.slice/electrs.service"), []string{idListener}},
		"the upstream's port": {addSocket("tcp LISTEN 0 5 127.0.0.1:50001 0.0.0.0:* uid:1000 cgroup:/user.slice/user-1000.slice/session-1.scope"),
			[]string{idListener}},
		"another's mDNS": {addSocket("udp UNCONN 0 0 0.0.0.0:5353 0.0.0.0:* uid:1000 cgroup:/system.slice/bitbox-base-avahi.service"),
			[]string{idListener}},
		"without a file":      {addSocket("u_str LISTEN 0 5 @rogue 4711 * 0 <->"), []string{idListener}},
		"a name, not waiting": {addSocket("u_dgr UNCONN 0 0 @client 4711 * 0 <->"), []string{}},
		"entry gone": {func(t *testing.T, f *fake) {
			f.replace(t, "[::]:8845", "[::1]:8845", listeners.Command...)
		}, []string{idEntrySilent}},
		"no IPv6": {func(t *testing.T, f *fake) {
			delete(f.stat, ipv6Sockets)
			f.replace(t, "[::]:8845", "[::1]:8845", listeners.Command...)
			f.replace(t, "tcp LISTEN 0      1024         [::1]:8845     [::]:* uid:33 ino:1 sk:1 cgroup:/system.slice/bitbox-base-nginx.service\n",
				"", listeners.Command...)
		}, []string{}},
		"entry taken over": {func(t *testing.T, f *fake) {
			f.replace(t, "0.0.0.0:8845  0.0.0.0:* uid:33 ino:1 sk:1 cgroup:/system.slice/bitbox-base-nginx.service",
				"0.0.0.0:8845 0.0.0.0:* uid:33 cgroup:/system.slice/rogue.service", listeners.Command...)
		}, []string{idEntrySilent, idListener}},
	})
}

func TestOpenedServicesMayListen(t *testing.T) {
	sockets, err := listeners.Parse(recorded(t, "ss") +
		"tcp LISTEN 0 1024 0.0.0.0:50002 0.0.0.0:* uid:33 cgroup:/system.slice/bitbox-base-nginx.service\n" +
		"tcp LISTEN 0 1024 [::]:50002 [::]:* uid:33 cgroup:/system.slice/bitbox-base-nginx.service\n" +
		"tcp LISTEN 0 128 0.0.0.0:22 0.0.0.0:* cgroup:/system.slice/bitbox-base-ssh.service\n")
	if err != nil {
		t.Fatal(err)
	}
	accounts, err := readAccounts(base(t))
	if err != nil {
		t.Fatal(err)
	}
	e := withSSH(t).Posture
	e.Endpoints = append(e.Endpoints, posture.Endpoint{Kind: posture.KindElectrum, Port: 50002})
	if d := compareSockets(sockets, e, accounts, nil, nil); d != nil {
		t.Errorf("found %v", d)
	}
	// Without them, each is found.
	d := compareSockets(sockets, factory().Posture, accounts, nil, nil)
	if len(d) != 1 || len(d[0].found) != 3 {
		t.Errorf("found %v", d)
	}
	// The inner port of an API that shares the entry is NGINX's, on loopback.
	e.Endpoints[len(e.Endpoints)-1] = posture.Endpoint{Kind: posture.KindElectrum, Port: posture.EntryPort, Shared: true}
	for address, want := range map[string]int{"127.0.0.1:8846": 2, "0.0.0.0:8846": 3} {
		inner, err := listeners.Parse("tcp LISTEN 0 511 " + address + " 0.0.0.0:* uid:33 cgroup:/system.slice/bitbox-base-nginx.service\n")
		if err != nil {
			t.Fatal(err)
		}
		if d := compareSockets(append(sockets, inner...), e, accounts, nil, nil); len(d) != 1 || len(d[0].found) != want {
			t.Errorf("with %s, found %v", address, d)
		}
	}
}

// The services of the appliance's builder listen on loopback, each as its own user.
func TestAServiceOfTheBuilderMayListenOnLoopback(t *testing.T) {
	electrs := func(line string) func(*testing.T, *fake) {
		return func(t *testing.T, f *fake) {
			f.files[services.OwnFile] = "electrs electrs.service Electrum server\n"
			f.units["electrs.service"] = units.State{"LoadState": "loaded", "UID": "64"}
			addSocket(line)(t, f)
		}
	}
	find(t, map[string]attack{
		"it":           {electrs("tcp LISTEN 0 5 127.0.0.1:50001 0.0.0.0:* uid:64 cgroup:/system.slice/electrs.service"), []string{}},
		"to all":       {electrs("tcp LISTEN 0 5 0.0.0.0:50001 0.0.0.0:* uid:64 cgroup:/system.slice/electrs.service"), []string{idListener}},
		"another user": {electrs("tcp LISTEN 0 5 127.0.0.1:50001 0.0.0.0:* uid:1000 cgroup:/system.slice/electrs.service"), []string{idListener}},
		"another unit": {electrs("tcp LISTEN 0 5 127.0.0.1:50001 0.0.0.0:* uid:64 cgroup:/user.slice/x.scope"), []string{idListener}},
	})
}

// On a kernel without control groups of version 2 the unit is unknown; then the user is compared
// alone.
func TestWithoutUnitsTheUserIsCompared(t *testing.T) {
	blind := func(line string) func(*testing.T, *fake) {
		return func(t *testing.T, f *fake) {
			command := strings.Join(listeners.Command, " ")
			text := regexp.MustCompile(`cgroup:\S+`).ReplaceAllString(f.output[command].Stdout, "cgroup:/")
			f.output[command] = Output{Stdout: text + line}
		}
	}
	find(t, map[string]attack{
		"in order":       {blind(""), []string{}},
		"another user":   {blind("tcp LISTEN 0 5 0.0.0.0:8845 0.0.0.0:* uid:1000 cgroup:/\n"), []string{idListener}},
		"another port":   {blind("tcp LISTEN 0 5 127.0.0.1:8846 0.0.0.0:* uid:33 cgroup:/\n"), []string{idListener}},
		"without a file": {blind("u_str LISTEN 0 5 @rogue 1 * 0 <->\n"), []string{idListener}},
		"only one is one": {blind("tcp LISTEN 0 5 127.0.0.1:53 0.0.0.0:* uid:1000 cgroup:/user.slice/x.scope\n"),
			[]string{idEntrySilent, idListener}},
	})
}
