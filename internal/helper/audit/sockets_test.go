package audit

import (
	"slices"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

func addSocket(line string) func(*testing.T, *fake) {
	return func(t *testing.T, f *fake) {
		f.replace(t, "udp UNCONN", line+"\nudp UNCONN", listening...)
	}
}

func TestWhateverListensIsFound(t *testing.T) {
	find(t, map[string]attack{
		"TCP":                  {addSocket("tcp LISTEN 0 5 0.0.0.0:4444 0.0.0.0:* cgroup:/system.slice/rogue.service"), []string{idListener}},
		"IPv6 only":            {addSocket("tcp LISTEN 0 5 [::]:4444 [::]:* cgroup:/system.slice/rogue.service"), []string{idListener}},
		"one address":          {addSocket("tcp LISTEN 0 5 10.0.2.15:4444 0.0.0.0:* cgroup:/user.slice"), []string{idListener}},
		"both families":        {addSocket("tcp LISTEN 0 5 *:4444 *:* cgroup:/user.slice"), []string{idListener}},
		"UDP":                  {addSocket("udp UNCONN 0 0 0.0.0.0:4444 0.0.0.0:* cgroup:/system.slice/rogue.service"), []string{idListener}},
		"SCTP":                 {addSocket("sctp LISTEN 0 5 *:4444 *:*"), []string{idListener}},
		"no unit known":        {addSocket("tcp LISTEN 0 5 0.0.0.0:4444 0.0.0.0:*"), []string{idListener}},
		"sshd without lease":   {addSocket("tcp LISTEN 0 128 0.0.0.0:22 0.0.0.0:* cgroup:/system.slice/bitbox-base-ssh.service"), []string{idListener}},
		"the inner port":       {addSocket("tcp LISTEN 0 128 0.0.0.0:8846 0.0.0.0:* cgroup:/system.slice/bitbox-base-nginx.service"), []string{idListener}},
		"the port of mDNS":     {addSocket("udp UNCONN 0 0 0.0.0.0:5353 0.0.0.0:* cgroup:/system.slice/rogue.service"), []string{idListener}},
		"a resolver's name":    {addSocket("udp UNCONN 0 0 0.0.0.0:999 0.0.0.0:* cgroup:/user.slice/systemd-resolved.service.scope"), []string{idListener}},
		"loopback is nobody's": {addSocket("tcp LISTEN 0 5 127.0.0.1:4444 0.0.0.0:* cgroup:/system.slice/electrs.service"), []string{}},
		"entry gone": {func(t *testing.T, f *fake) {
			f.replace(t, "[::]:8845", "[::1]:8845", listening...)
		}, []string{idEntrySilent}},
		"entry taken over": {func(t *testing.T, f *fake) {
			f.replace(t, "0.0.0.0:8845  0.0.0.0:* cgroup:/system.slice/bitbox-base-nginx.service", "0.0.0.0:8845 0.0.0.0:* cgroup:/system.slice/rogue.service", listening...)
		}, []string{idEntrySilent, idListener}},
	})
}

func TestWhatAnOwnerOpenedMayListen(t *testing.T) {
	sockets, err := parseSockets(recorded(t, "ss") +
		"tcp LISTEN 0 1024 0.0.0.0:50002 0.0.0.0:* cgroup:/system.slice/bitbox-base-nginx.service\n" +
		"tcp LISTEN 0 1024 [::]:50002 [::]:* cgroup:/system.slice/bitbox-base-nginx.service\n" +
		"tcp LISTEN 0 128 0.0.0.0:22 0.0.0.0:* cgroup:/system.slice/bitbox-base-ssh.service\n")
	if err != nil {
		t.Fatal(err)
	}
	e := withSSH(t).Posture
	e.Endpoints = append(e.Endpoints, posture.Endpoint{Kind: posture.KindElectrum, Port: 50002})
	if d := compareSockets(sockets, e); d != nil {
		t.Errorf("found %v", d)
	}
	// And without them, each is found.
	d := compareSockets(sockets, factory().Posture)
	if len(d) != 1 || len(d[0].found) != 3 {
		t.Errorf("found %v", d)
	}
}

func TestUnitOfAControlGroup(t *testing.T) {
	for group, want := range map[string]string{
		"/system.slice/nginx.service":                  "nginx.service",
		"/system.slice/system-x.slice/x@1.service/sub": "x@1.service",
		"/user.slice/user-0.slice/session-1.scope":     "session-1.scope",
		"/init.scope": "init.scope",
		"/":           "",
	} {
		if got := unitOf(group); got != want {
			t.Errorf("%s: %q, not %q", group, got, want)
		}
	}
}

func FuzzParseSockets(f *testing.F) {
	f.Add("tcp LISTEN 0 511 [::]:8845 [::]:* cgroup:/x.service\n")
	f.Fuzz(func(t *testing.T, text string) {
		sockets, err := parseSockets(text)
		if err == nil && len(sockets) == 0 && slices.ContainsFunc([]byte(text), func(b byte) bool { return b > ' ' && b < 0x7f }) {
			t.Errorf("%q was read as nothing", text)
		}
	})
}
