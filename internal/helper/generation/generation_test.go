package generation

import (
	"encoding/xml"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const keyLine = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDvpxXGDAu0w+FUDIb/ygcy6q1chR7o1fzWvDDnfwJSA alice@laptop"

func closed() posture.Effective {
	return posture.Effective{
		NodeName:  "BitBox Base",
		Endpoints: []posture.Endpoint{{Kind: posture.KindEntry, Port: posture.EntryPort}},
		Bans:      posture.Factory().Bans,
	}
}

func open(t *testing.T) posture.Effective {
	t.Helper()
	key, err := sshkey.Parse(keyLine)
	if err != nil {
		t.Fatal(err)
	}
	e := closed()
	e.Endpoints = append(e.Endpoints, posture.Endpoint{Kind: posture.KindElectrum, Port: 50002, Remaining: time.Hour})
	e.SSH = &posture.SSH{Keys: []sshkey.Key{key}, Remaining: time.Hour}
	e.Egress = posture.Services
	return e
}

func render(t *testing.T, e posture.Effective) Files {
	t.Helper()
	files, err := Render(e)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// SSH, an extra API and a service that may go out change only what they should.
func TestOpeningSomethingChangesNothingElse(t *testing.T) {
	before, after := render(t, closed()), render(t, open(t))
	b := &strings.Builder{}
	for _, name := range []string{IPv4Rules, IPv6Rules, ProxyConfig, SSHConfig, AuthorizedKeys, LetOut, BansDirectory + "/jail.conf"} {
		b.WriteString("== " + name + "\n")
		old := map[string]bool{"\n": true}
		for line := range strings.Lines(before[name]) {
			old[line] = true
		}
		for line := range strings.Lines(after[name]) {
			if !old[line] {
				b.WriteString("+ " + line)
			}
		}
	}
	file := filepath.Join("testdata", "opened")
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Errorf("if that is meant, run go test -update and review it:\n%s", d)
	}
	// Endpoints come before the rest, and the remaining time of a lease is not rendered.
	later := open(t)
	later.SSH.Remaining, later.Endpoints[1].Remaining = time.Minute, time.Minute
	if d := cmp.Diff(after, render(t, later)); d != "" {
		t.Errorf("the passing of time changes the configuration:\n%s", d)
	}
}

func TestEachNameThatAPostureAllowsIsKnownHere(t *testing.T) {
	for _, extra := range posture.Extras {
		if _, known := sockets[extra.Kind]; !known {
			t.Errorf("no service is known behind the extra API %q", extra.Kind)
		}
	}
	for _, service := range posture.Services {
		if _, known := serviceEgress[service]; !known {
			t.Errorf("no user is known for the service %q", service)
		}
	}
}

// The file names a user if and only if the packet filter of the same generation has a rule that lets it out.
func TestTheFileOfThoseWhoAreLetOutSaysWhatThePacketFilterDoes(t *testing.T) {
	for _, service := range append([]posture.Service{""}, posture.Services...) {
		e := closed()
		if service != "" {
			e.Egress = []posture.Service{service}
		}
		files := render(t, e)
		for _, user := range []string{"bitcoin", "lightning", "debian-tor"} {
			named := strings.Contains("\n"+files[LetOut], "\n"+user+"\n")
			rule := "--uid-owner " + user + " -j "
			out := strings.Contains(files[IPv4Rules], rule+"INTERNET") || strings.Contains(files[IPv4Rules], rule+"HOME")
			if named != out {
				t.Errorf("%q in force: the file names %s: %t; the rules let it out: %t\n%s", service, user, named, out, files[IPv4Rules])
			}
		}
	}
}

func TestUnknownNamesAreRefused(t *testing.T) {
	for name, change := range map[string]func(*posture.Effective){
		"an extra API": func(e *posture.Effective) {
			e.Endpoints = append(e.Endpoints, posture.Endpoint{Kind: "web", Port: 443})
		},
		"a service": func(e *posture.Effective) { e.Egress = []posture.Service{"miner"} },
		"no entry":  func(e *posture.Effective) { e.Endpoints = nil },
		"no bans":   func(e *posture.Effective) { e.Bans = posture.BanPolicy{} },
	} {
		e := closed()
		change(&e)
		if files, err := Render(e); err == nil || files != nil {
			t.Errorf("%s: rendered (%v)", name, err)
		}
	}
}

func TestAnnouncementIsWhatAvahiReads(t *testing.T) {
	text, err := RenderAnnouncement(Announcement{Name: "Zoë's <Base> & co", Port: 8845, TXT: []string{"v=1", "pairing=open"}})
	if err != nil {
		t.Fatal(err)
	}
	var read avahiGroup
	if err := xml.Unmarshal([]byte(text), &read); err != nil {
		t.Fatal(err)
	}
	if read.Name != "Zoë's <Base> & co" || read.Service.Type != serviceType || read.Service.Port != 8845 || len(read.Service.TXT) != 2 {
		t.Errorf("read back: %+v", read)
	}
	for name, a := range map[string]Announcement{
		"no name":       {Port: 8845},
		"a long name":   {Name: strings.Repeat("x", 64), Port: 8845},
		"a line break":  {Name: "a\nb", Port: 8845},
		"not UTF-8":     {Name: "a\xff", Port: 8845},
		"no port":       {Name: "a"},
		"an empty text": {Name: "a", Port: 8845, TXT: []string{""}},
	} {
		if text, err := RenderAnnouncement(a); err == nil {
			t.Errorf("%s: rendered\n%s", name, text)
		}
	}
}

// A Base may have any name that CheckName takes, and is announced by exactly this name: if it were
// not, no App would find it. Names of many characters at a time try each of them.
func TestEachNameOfABaseIsAnnounced(t *testing.T) {
	tried, name := 0, ""
	announced := func() {
		var read avahiGroup
		text, err := RenderAnnouncement(Announcement{Name: name, Port: 8845, TXT: []string{"v=1"}})
		if err == nil {
			err = xml.Unmarshal([]byte(text), &read)
		}
		if err != nil || read.Name != name {
			t.Errorf("%+q: Avahi reads %+q (%v)", name, read.Name, err)
		}
		name = ""
	}
	for r := range rune(unicode.MaxRune + 1) {
		one := "a" + string(r) + "b" // a space or a mark has to stand within
		if !utf8.ValidRune(r) || noiseconn.CheckName(one) != nil {
			continue
		}
		tried++
		if len(name)+len(one) > noiseconn.MaxNameSize {
			announced()
		}
		name += one
	}
	announced()
	if tried < 900_000 { // of 1,112,064, most of them unassigned; 137,468 are for private use
		t.Errorf("only %d characters were tried", tried)
	}
}

// IPv6 is left out only where the kernel certainly has none: else a Base would not listen there.
func TestAKernelWithoutIPv6IsFound(t *testing.T) {
	for name, c := range map[string]struct {
		files []string
		want  bool
	}{
		"both families": {[]string{"tcp", "tcp6"}, false},
		"IPv4 alone":    {[]string{"tcp"}, true}, // as with ipv6.disable=1
		"IPv6 alone":    {[]string{"tcp6"}, false},
		"no /proc":      {nil, false},
	} {
		network := t.TempDir()
		for _, file := range c.files {
			if err := os.WriteFile(filepath.Join(network, file), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := noIPv6(network); got != c.want {
			t.Errorf("%s: without IPv6 %v", name, got)
		}
	}
	// A file that cannot be looked at may be there.
	network := t.TempDir()
	unknown := filepath.Join(network, "tcp6")
	if err := os.Symlink("tcp6", unknown); err != nil { // it leads to itself
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(network, "tcp"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if noIPv6(network) {
		t.Error("what cannot be looked at counts as missing")
	}
	// The machine of this test has both, or says so.
	_, err := os.Stat("/proc/net/tcp6")
	if got := ThisMachine().NoIPv6; got != (err != nil) {
		t.Errorf("this machine is without IPv6: %v, and /proc/net/tcp6: %v", got, err)
	}
}
