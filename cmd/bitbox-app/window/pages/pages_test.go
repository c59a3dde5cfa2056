package pages

import (
	"bytes"
	"context"
	"encoding/base64"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/static"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// preview is a folder into which the tests write each page that they make, to be looked at.
var preview = flag.String("preview", "", "write each page of the tests into this folder")

// now is the time in all tests.
var now = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// hostile is a name with markup, as a Base or an App may call itself.
const hostile = `<img src=x onerror="alert(1)">'"&{{.}}`

// hostKey is an SSH host key on the wire, and hostKeyFingerprint what ssh shows of it.
var hostKey, _ = base64.StdEncoding.DecodeString("AAAAC3NzaC1lZDI1NTE5AAAAIDvpxXGDAu0w+FUDIb/ygcy6q1chR7o1fzWvDDnfwJSA")

const hostKeyFingerprint = "SHA256:IIWbFbDZMxdwAOSyNNGf6/UXaDx79IRo6wTzr5oEUes"

func pointer[T any](v T) *T { return &v }

// wellBase is a Base with which all is well.
func wellBase() owner.Base {
	b := owner.Base{
		Base: client.Base{
			Name: "Attic", State: client.Active, PublicKey: [32]byte{1}, AppID: "a1", AppName: "laptop", Role: basev1.Role_ROLE_OWNER,
		},
		Look: owner.Look{
			Info: &basev1.GetInfoResponse{
				Name: "Attic", LoadAverage: []float64{0.42, 0.4, 0.38}, MemoryTotalBytes: 8 << 30, MemoryAvailableBytes: 5 << 30,
				DiskTotalBytes: 1 << 40, DiskAvailableBytes: 300 << 30, TemperatureCelsius: pointer(47.0), Addresses: []string{"192.168.1.20"},
				Caller: &basev1.App{Id: "a1", Name: "laptop", Role: basev1.Role_ROLE_OWNER},
			},
			Access: &owner.Access{Revision: 7, Doors: []owner.Door{{Kind: "channel", Port: 8845}},
				Bans: words.Saying("values.bans", 5, words.Seconds(600), words.Seconds(3600))},
			Window:  &basev1.Window{},
			HasBans: true,
			Node: &basev1.Node{State: basev1.Node_STATE_CURRENT, Software: "Bitcoin Core", Version: "30.0", Height: 924315, Target: 924315,
				Progress: 1, PeersIn: pointer(uint32(0)), PeersOut: pointer(uint32(10))},
			Services: []*basev1.Service{{Name: "bitbox-base-middleware", State: basev1.Service_STATE_RUNNING}},
		},
		Connection: owner.Connected, At: now.Add(-5 * time.Second), HasAudit: true, AuditedAt: now.Add(-4 * time.Minute),
	}
	for n := range 60 {
		b.Look.Samples = append(b.Look.Samples, &basev1.Sample{
			Time: timestamppb.New(now.Add(time.Duration(n-60) * 20 * time.Minute)), Load: 0.3 + float64(n*n%17)/20,
			MemoryTotalBytes: 8 << 30, MemoryAvailableBytes: uint64(5<<30) - uint64(n%13)<<26, DiskTotalBytes: 1 << 40,
			DiskAvailableBytes: 320<<30 - uint64(n)<<28, TemperatureCelsius: pointer(42 + float64(n*n%11)),
		})
	}
	connected := basev1.Event_SessionStarted{SessionStarted: &basev1.SessionStartedEvent{App: &basev1.App{Id: "b2", Name: "phone"}}}
	begun := basev1.Event_BaseStarted{BaseStarted: &basev1.BaseStartedEvent{SoftwareVersion: "1.3.0", Booted: true}}
	b.Events = []owner.Event{
		{First: now.Add(-26 * time.Hour), At: now.Add(-26 * time.Hour), Times: 1, Event: &basev1.Event{Sequence: 3, Event: &begun}},
		{First: now.Add(-50 * time.Minute), At: now.Add(-3 * time.Minute), Times: 4,
			Event: &basev1.Event{Sequence: 9, Event: &connected}},
	}
	return b
}

// openBase is a Base with much that is open, and findings.
func openBase() owner.Base {
	b := wellBase()
	b.Name, b.PublicKey = "Cellar", [32]byte{2}
	a := b.Look.Access
	a.Doors = append(a.Doors, owner.Door{Kind: "electrum", Port: 50002, Left: 47 * time.Minute, From: []string{"192.168.1.0/24"}})
	a.SSH, a.SSHLeft, a.HostKey = true, 9*time.Minute+12*time.Second, hostKey
	b.Addresses = []string{"192.168.1.20:8845"}
	a.Keys = []string{"satoshi@laptop", "SHA256:0f3kq2n0pJ8yqXvTq1dW5nB7mZr2c9kLhU4eXoPfGsA"}
	a.Fingerprints = []string{"SHA256:9a1Vb8mYd2QhTz7kJx5Lr3Nc6Wp0GsEoUiRfHtDyBvM", a.Keys[1]}
	b.Look.Window = &basev1.Window{Open: true, RemainingMs: 154000}
	b.Look.Bans = []*basev1.Ban{
		{Address: "192.168.1.77", Jail: "bitbox-base-handshake", Until: timestamppb.New(now.Add(50 * time.Minute))},
	}
	b.Findings = []*basev1.Finding{
		{Id: "f1", Severity: basev1.Finding_SEVERITY_CRITICAL, Title: "A port is open that nobody has opened",
			Expected: "no listener on port 4444", Found: "tcp 0.0.0.0:4444, process nc",
			Why: "An attacker can speak to a program that the Base does not know.", Fix: "Stop the program that listens there."},
		{Id: "f2", Severity: basev1.Finding_SEVERITY_WARNING, Title: "The packet filter differs from the posture",
			Found: "-A INPUT -p tcp --dport 4444 -j ACCEPT", Fix: "Load the rendered rules again.", Fixable: true},
		{Id: "f3", Severity: basev1.Finding_SEVERITY_INFO, Title: "Debian has 3 updates", Fix: "Install them."},
	}
	return b
}

// triedBase is a Base on which another App tries a change.
func triedBase() owner.Base {
	b := wellBase()
	b.Look.Access.Trying, b.Look.Access.UndoneIn = true, 41*time.Second
	b.Look.Access.Tried = []client.PostureChange{{Opens: true, Done: "Electrum is open to every network on port 50002, until it is closed."}}
	return b
}

// homeBase is as a Base is at home: a wallet is connected, a second person sees it, and all is well.
func homeBase() owner.Base {
	b := wellBase()
	b.Look.Info.SoftwareVersion, b.Look.Info.TimeZone = "1.3.0", "Europe/Zurich"
	b.Addresses = []string{"192.168.1.20:8845"}
	b.Look.Access.Doors = append(b.Look.Access.Doors, owner.Door{Kind: owner.WalletKind, Port: 50002, ForGood: true,
		From: []string{"192.168.1.0/24"}, Certificate: strings.Repeat("5f2c9a7e01d4b863", 4)})
	b.Look.Access.Keys, b.Look.Access.Fingerprints = []string{"satoshi@laptop"}, []string{"SHA256:9a1Vb8mYd2QhTz7kJx5Lr3Nc6Wp0GsEoUiRfHtDyBvM"}
	b.Look.Access.Internet = []string{client.NodeInternet}
	b.Look.Node.Network = basev1.Network_NETWORK_MAINNET
	b.Look.Node.BestBlockTime, b.Look.Node.AskedAt = timestamppb.New(now.Add(-7*time.Minute)), timestamppb.New(now.Add(-4*time.Second))
	b.Look.Node.SizeBytes = pointer(uint64(742 << 30))
	b.Look.Node.WalletServer = &basev1.WalletServer{Height: 924315, Target: 924315, Ready: true}
	b.Look.Apps = []*basev1.App{
		{Id: "a1", Name: "laptop", Role: basev1.Role_ROLE_OWNER, PairedAt: timestamppb.New(now.Add(-90 * 24 * time.Hour)),
			LastSeenAt: timestamppb.New(now), Sessions: 1, IsCaller: true},
		{Id: "b2", Name: "phone", Role: basev1.Role_ROLE_VIEWER, PairedAt: timestamppb.New(now.Add(-20 * 24 * time.Hour)),
			LastSeenAt: timestamppb.New(now.Add(-3 * time.Minute))},
	}
	b.Parts = map[owner.Want]owner.Answered{
		{Part: owner.Wallets, Subject: owner.WalletKind}: {At: now, Wallets: &basev1.GetWalletsResponse{Answers: true, Told: true,
			Wallets: []*basev1.Wallet{{Address: "192.168.1.31", Since: timestamppb.New(now.Add(-40 * time.Minute))}}}},
	}
	return b
}

// lostBase does not answer, and has never answered.
func lostBase() owner.Base {
	return owner.Base{Base: client.Base{Name: "Garage", State: client.Active, PublicKey: [32]byte{3}}, Connection: owner.Lost,
		Err: &client.Error{Kind: client.ErrUnreachable, Text: "no address of the Base answers"}, Again: now.Add(32 * time.Second)}
}

// hostileBase has markup in each text that it sends.
func hostileBase() owner.Base {
	b := openBase()
	b.Name, b.PublicKey, b.Look.Info.Name = hostile, [32]byte{4}, hostile
	b.Look.Access.Keys, b.Look.Access.Doors[1].Kind = []string{hostile}, hostile
	b.Look.Bans[0].Address, b.Findings[1].Title, b.Findings[1].Found, b.Findings[1].Id = hostile, hostile, hostile, hostile
	b.Look.Services[0].Name, b.Look.Services[0].State = hostile, basev1.Service_STATE_FAILED
	return b
}

func renderer(l words.Language) *Renderer { return New(l, 15*time.Minute) }

// document makes the page of an address, writes it for a preview, and reads it as a browser does.
func document(t *testing.T, name string, p Page) *html.Node {
	t.Helper()
	var text bytes.Buffer
	r := renderer(words.English)
	if strings.HasSuffix(name, ".de") {
		r = renderer(words.German)
	}
	if err := r.Document(&text, p, Frame{Path: "/page", Proof: strings.Repeat("0", 64)}); err != nil {
		t.Fatal(err)
	}
	if *preview != "" {
		write(t, filepath.Join(*preview, name+".html"), text.Bytes())
		for _, file := range static.All {
			write(t, filepath.Join(*preview, file.Path), file.Content)
		}
	}
	tree, err := html.Parse(&text)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func has(n *html.Node, name string) bool {
	return slices.ContainsFunc(n.Attr, func(a html.Attribute) bool { return a.Key == name })
}

func elements(n *html.Node) []*html.Node {
	var list []*html.Node
	for each := range n.Descendants() {
		if each.Type == html.ElementNode {
			list = append(list, each)
		}
	}
	return list
}

func textOf(n *html.Node) string {
	var b strings.Builder
	for each := range n.Descendants() {
		if each.Type == html.TextNode {
			b.WriteString(each.Data + " ")
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// check has what each page of the window promises.
func check(t *testing.T, tree *html.Node) {
	t.Helper()
	var firsts, level int
	ids, labelled := map[string]bool{}, map[string]bool{}
	all := elements(tree)
	for _, n := range all {
		labelled[attribute(n, "for")] = true
	}
	for _, n := range all {
		for _, a := range n.Attr {
			if strings.HasPrefix(a.Key, "on") || a.Key == "style" || strings.HasPrefix(strings.ToLower(a.Val), "javascript:") {
				t.Errorf("<%s> has %s=%q", n.Data, a.Key, a.Val)
			}
		}
		if id := attribute(n, "id"); id != "" {
			if ids[id] {
				t.Errorf("two elements have the id %q", id)
			}
			ids[id] = true
		}
		switch n.Data {
		case "style", "iframe", "object", "embed", "base":
			t.Errorf("there is a <%s>", n.Data)
		case "script":
			if n.FirstChild != nil || attribute(n, "src") != static.Script.Path {
				t.Error("there is another script than the one of the window")
			}
		case "img":
			t.Error("there is an <img>; pictures are inline SVG")
		case "svg":
			if attribute(n, "aria-hidden") != "true" && attribute(n, "role") != "img" {
				t.Error("a picture has no role, and is not hidden from screen readers")
			}
		case "h1", "h2", "h3", "h4":
			now := int(n.Data[1] - '0')
			if now > level+1 {
				t.Errorf("heading %d %q follows one of level %d", now, textOf(n), level)
			}
			level = now
			if now == 1 {
				firsts++
			}
			if textOf(n) == "" {
				t.Errorf("an empty <%s>", n.Data)
			}
		case "input", "select", "textarea":
			named := labelled[attribute(n, "id")] || attribute(n, "aria-label") != "" || n.Parent.Data == "label"
			if attribute(n, "type") != "hidden" && !named {
				t.Errorf("<%s name=%q> has no label", n.Data, attribute(n, "name"))
			}
		case "button", "a":
			if textOf(n) == "" && attribute(n, "aria-label") == "" {
				t.Errorf("a <%s> without a name", n.Data)
			}
		case "form":
			action := attribute(n, "action")
			chooses := attribute(n, "method") == "get" && action == attribute(current(all), "href") // what the page shows
			if attribute(n, "method") != "post" && !chooses || !strings.HasPrefix(action, "/") {
				t.Errorf("a form goes by %s to %q", attribute(n, "method"), attribute(n, "action"))
			}
			if row := enclosing(n, "li", "tr"); row != nil && !has(row, "data-key") {
				t.Errorf("the form %s is in a row without data-key: its focus would go on to another row", attribute(n, "action"))
			}
		}
	}
	if firsts != 1 {
		t.Errorf("the page has %d headings of the first level", firsts)
	}
}

// current is the link to the page itself.
func current(all []*html.Node) *html.Node {
	for _, n := range all {
		if attribute(n, "aria-current") == "page" {
			return n
		}
	}
	return &html.Node{}
}

func enclosing(n *html.Node, names ...string) *html.Node {
	for n = n.Parent; n != nil; n = n.Parent {
		if slices.Contains(names, n.Data) {
			return n
		}
	}
	return nil
}

// keys finds sentences that a language lacks: they are shown as their key.
var keys = regexp.MustCompile(`\b(frame|pair|overview|deed|security|node|wallet|services|people|updates|log|machine|settings|errors)\.[a-z]+(\.[a-z]+)*\b`)

// doing is a state with one deed.
func doing(d owner.DeedState) owner.State {
	d.Number = 1
	bases := []owner.Base{triedBase()}
	if d.Base == "" {
		bases, d.Deed.Kind = nil, owner.Pair
	}
	return owner.State{Bases: bases, Deeds: []owner.DeedState{d}}
}

// states are those in which the tests see each page.
var states = map[string]owner.State{
	"well":    {Bases: []owner.Base{wellBase()}},
	"home":    {Bases: []owner.Base{homeBase()}},
	"open":    {Bases: []owner.Base{openBase()}},
	"tried":   {Bases: []owner.Base{triedBase()}},
	"lost":    {Bases: []owner.Base{lostBase()}},
	"hostile": {Bases: []owner.Base{hostileBase()}},
	"several": {Bases: []owner.Base{wellBase(), openBase(), lostBase()}},
	"empty":   {},
	"nearby": {Nearby: []owner.Announced{
		{Nearby: client.Nearby{Name: "BitBox Base", Addresses: []string{"192.168.1.20:8845"}, ProtocolVersion: 1, PairingOpen: true}},
		{ID: 1, Nearby: client.Nearby{Name: hostile, Addresses: []string{"192.168.1.21:8845"}, ProtocolVersion: 1}},
	}},
	"asking":     doing(owner.DeedState{Began: now}),
	"requesting": doing(owner.DeedState{Began: now, RequestNumber: "731 204"}),
	"comparing": doing(owner.DeedState{Began: now, RequestNumber: "731 204", Question: &owner.Question{ID: 5, Kind: owner.Compare,
		Code: client.Code{Digits: "482 913", BaseName: hostile, AppName: "laptop", Role: basev1.Role_ROLE_OWNER}}}),
	"pairing": doing(owner.DeedState{Began: now, RequestNumber: "731 204", Question: &owner.Question{ID: 5, Kind: owner.Compare,
		Code: client.Code{Digits: "482 913", BaseName: "BitBox Base", AppName: "laptop", Role: basev1.Role_ROLE_OWNER}}}),
	"waiting": doing(owner.DeedState{Began: now, RequestNumber: "731 204", Agreed: true, Compared: &owner.Question{ID: 5,
		Kind: owner.Compare, Code: client.Code{Digits: "482 913"}}}),
	"told": doing(owner.DeedState{Began: now, RequestNumber: "731 204", Agreed: true, Compared: &owner.Question{ID: 5,
		Kind: owner.TellWords, Code: client.Code{Words: "lusab-babad-gutih-tugad-gutuk-bisog"}}}),
	"telling": doing(owner.DeedState{Began: now, RequestNumber: "731 204", Question: &owner.Question{ID: 5, Kind: owner.TellWords,
		Code: client.Code{Words: "lusab-babad-gutih-tugad-gutuk-bisog", BaseName: "Attic", AppName: "laptop", Role: basev1.Role_ROLE_VIEWER}}}),
	"paired": doing(owner.DeedState{Began: now, Ended: now, Made: &client.Base{Name: "Attic", PublicKey: [32]byte{1}}}),
	"consenting": doing(owner.DeedState{Base: wellBase().ID(), Began: now, Deed: owner.Deed{Kind: owner.Expose, Subject: "electrum"},
		Question: &owner.Question{ID: 6, Kind: owner.Consent, Changes: []client.PostureChange{
			{Opens: true, Text: "Electrum will be open to 192.168.1.0/24 on port 50002, for 1 hour."}, {Text: "The Base keeps its name."}}}}),
	"locking": doing(owner.DeedState{Base: wellBase().ID(), Began: now, Deed: owner.Deed{Kind: owner.Lockdown},
		Question: &owner.Question{ID: 7, Kind: owner.Consent, Changes: []client.PostureChange{{Text: hostile}}}}),
	"sending": doing(owner.DeedState{Base: triedBase().ID(), Began: now, Deed: owner.Deed{Kind: owner.EndLease, Subject: "ssh"},
		Agreed: true, Steps: []words.Said{words.ApplyStep("render"), words.ApplyStep("validate: nginx.service")},
		Sent: 9 << 20, Total: 33 << 20}),
	"stopped": doing(owner.DeedState{Base: wellBase().ID(), Began: now, Ended: now, Deed: owner.Deed{Kind: owner.LiftBan, Subject: hostile},
		Steps: []words.Said{words.ApplyStep("render")}, Err: context.DeadlineExceeded, Leaves: words.Saying("leaves.tried")}),
	"finished": doing(owner.DeedState{Base: wellBase().ID(), Began: now, Ended: now, Deed: owner.Deed{Kind: owner.EndLease, Subject: "ssh"},
		Steps: []words.Said{words.ApplyStep("render")}, Result: words.Saying("done.end-lease")}),
}

// Each page in each state and language has one heading of the first level, names for all that can be
// pressed, no script or style of its own, and no text of a Base that has become markup.
func TestEachPageIsSoundInEachState(t *testing.T) {
	for name, s := range states {
		addresses := []string{"/bases", "/pair", "/deed/1", "/base/none/overview"}
		for _, b := range s.Bases {
			for _, each := range screens {
				addresses = append(addresses, addressOf(b, each.name))
			}
		}
		for _, address := range addresses {
			for _, l := range words.Languages() {
				file := name + strings.ReplaceAll(address, "/", "-") + "." + l.Tag
				t.Run(file, func(t *testing.T) {
					p := renderer(l).Page(address, s, now)
					tree := document(t, file, p)
					check(t, tree)
					if missing := keys.FindString(textOf(tree)); missing != "" && p.Status == 200 {
						t.Errorf("no sentence for %s", missing)
					}
					again := renderer(l).Page(address, s, now.Add(time.Second))
					for n, part := range again.Live() {
						if part.HTML != p.Live()[n].HTML {
							t.Errorf("the part %s changes with time alone", part.ID)
						}
					}
				})
			}
		}
	}
}

func TestPagesWithoutASessionAreSound(t *testing.T) {
	for _, l := range words.Languages() {
		for name, p := range map[string]Page{
			"enter":   renderer(l).Page("/enter", owner.State{}, now),
			"locked":  renderer(l).Notice(401, words.Text{Text: "Nobody was at this page for 15 minutes."}),
			"refused": renderer(l).Notice(403, words.Text{Text: hostile}),
		} {
			t.Run(name+"."+l.Tag, func(t *testing.T) { check(t, document(t, name+"."+l.Tag, p)) })
		}
	}
}

// The title of a deed names what it does, in each language.
func TestEachDeedHasATitle(t *testing.T) {
	for kind := owner.OpenWindow; kind.String() != ""; kind++ {
		if kind == owner.Pair {
			continue // its page is that of a pairing
		}
		for _, l := range words.Languages() {
			v := &view{Renderer: renderer(l)}
			title := v.deedTitle(owner.DeedState{Base: "x", Deed: owner.Deed{Kind: kind, Subject: "subject"}})
			if strings.Contains(title, "deed.title") || strings.Contains(title, "%!") {
				t.Errorf("%s: the title of %s is %q", l.Name, kind, title)
			}
		}
	}
}

// The first page takes at most 5 requests, the stream among them, and 150 KB.
func TestThePageIsSmall(t *testing.T) {
	const most = 150_000
	var text bytes.Buffer
	r := renderer(words.English)
	if err := r.Document(&text, r.Page("/base/"+openBase().ID()+"/security", states["open"], now), Frame{Path: "/"}); err != nil {
		t.Fatal(err)
	}
	loads, sum := 2, text.Len() // the document and the stream
	for _, file := range static.All {
		if !strings.Contains(text.String(), file.Path) {
			t.Errorf("the document does not load %s", file.Path)
		}
		loads, sum = loads+1, sum+len(file.Content)
	}
	if loads > 5 || sum > most {
		t.Errorf("the first page takes %d requests and %d bytes", loads, sum)
	}
	t.Logf("%d requests, %d bytes", loads, sum)
}

// A picture of the Base's screen must not show the digits that are to be compared.
func TestThePictureOfTheScreenHasNoDigits(t *testing.T) {
	for _, name := range []string{"requesting", "comparing"} {
		tree := document(t, name, renderer(words.English).Page("/deed/1", states[name], now))
		found := false
		for _, n := range elements(tree) {
			if n.Data == "svg" && strings.Contains(attribute(n, "class"), "picture-base") {
				found = true
				if strings.ContainsAny(textOf(n), "0123456789") {
					t.Errorf("the picture says %q", textOf(n))
				}
			}
		}
		if !found {
			t.Errorf("%s has no picture of the screen", name)
		}
	}
}

// The Base asks for the code until both sides have said yes, so the page goes on to show it. A Base
// without a screen has no key to press.
func TestTheCodeStaysUntilTheBaseHasSaidYes(t *testing.T) {
	for name, code := range map[string]string{"waiting": "482 913", "told": "lusab-babad-gutih-tugad-gutuk-bisog"} {
		text := textOf(document(t, name, renderer(words.English).Page("/deed/1", states[name], now)))
		if !strings.Contains(text, code) {
			t.Errorf("%s: the code %s is gone: %s", name, code, text)
		}
		if screen := name == "waiting"; strings.Contains(text, "press Y") != screen {
			t.Errorf("%s: says to press Y at the Base, or does not: %s", name, text)
		}
	}
}

// Each page of a Base that does not answer says that what it shows is old.
func TestAPageSaysThatItIsOld(t *testing.T) {
	b := wellBase()
	for connection, old := range map[owner.Connection]bool{owner.Connected: false, owner.Lost: true} {
		b.Connection = connection
		for _, each := range screens {
			p := renderer(words.English).Page(addressOf(b, each.name), owner.State{Bases: []owner.Base{b}}, now)
			text := textOf(document(t, "old", p))
			if got := strings.Contains(text, "The Base does not answer."); got != old {
				t.Errorf("%s says that the Base does not answer: %t, want %t", each.name, got, old)
			}
		}
	}
}

// The settings say of when the role is, unless the Base answers.
func TestTheSettingsSayOfWhenTheRoleIs(t *testing.T) {
	silent := lostBase()
	silent.Role, silent.RoleAt = basev1.Role_ROLE_VIEWER, now.Add(-time.Hour)
	well, lost := wellBase(), wellBase()
	lost.Connection, lost.At = owner.Lost, now.Add(-2*time.Hour)
	at := func(ago time.Duration) string { return " (as of " + words.English.When(now.Add(-ago), now) + ")" }
	states := map[string]owner.Base{"Role owner Id": well, "Role owner" + at(2*time.Hour): lost, "Role viewer" + at(time.Hour): silent}
	for want, b := range states {
		p := renderer(words.English).Page(addressOf(b, "settings"), owner.State{Bases: []owner.Base{b}}, now)
		if text := textOf(document(t, "settings", p)); !strings.Contains(text, want) {
			t.Errorf("the settings lack %q: %s", want, text)
		}
	}
}

// A change is shown before it is on trial.
func TestTheOverviewSaysThatAChangeIsBeingApplied(t *testing.T) {
	b := wellBase()
	b.Look.Access.Applying = true
	p := renderer(words.English).Page(addressOf(b, first), owner.State{Bases: []owner.Base{b}}, now)
	if text := textOf(document(t, "applying", p)); !strings.Contains(text, "A change is being put in force") {
		t.Errorf("the overview lacks it: %s", text)
	}
}

// A document says its language once, to screen readers too, and keeps it: in another one it is loaded again.
func TestAPageInAnotherLanguageHasAnotherShape(t *testing.T) {
	var shapes []string
	for _, l := range words.Languages() {
		shapes = append(shapes, renderer(l).Page("/bases", states["well"], now).Shape())
	}
	if shapes[0] == shapes[1] {
		t.Error("pages in two languages have the same shape")
	}
}

// The settings show the time that is in force, even one that they do not offer.
func TestTheSettingsShowAfterWhichTimeThePageLocks(t *testing.T) {
	for idle, want := range map[time.Duration][2]string{15 * time.Minute: {"15", "15 minutes"}, 2 * time.Hour: {"", "2 hours"}} {
		r := New(words.English, idle)
		p := r.Page(addressOf(wellBase(), "settings"), states["well"], now)
		var chosen [][2]string
		for _, n := range elements(document(t, "settings", p)) {
			if n.Data == "select" && attribute(n, "name") == "idle" {
				for _, o := range elements(n) {
					if o.Data == "option" && slices.ContainsFunc(o.Attr, func(a html.Attribute) bool { return a.Key == "selected" }) {
						chosen = append(chosen, [2]string{attribute(o, "value"), textOf(o)})
					}
				}
			}
		}
		if len(chosen) != 1 || chosen[0] != want {
			t.Errorf("with %v: chosen is %q, want %q", idle, chosen, want)
		}
	}
}

// A yes names the question that was read, and waits for its first second.
func TestAYesNamesItsQuestion(t *testing.T) {
	for name, id := range map[string]string{"comparing": "5", "telling": "5", "consenting": "6", "locking": "7"} {
		tree := document(t, name, renderer(words.English).Page("/deed/1", states[name], now))
		var named, yes, no bool
		for _, n := range elements(tree) {
			named = named || attribute(n, "name") == "question" && attribute(n, "value") == id
			yes = yes || attribute(n, "value") == "yes" && attribute(n, "data-dead") == id
			no = no || attribute(n, "value") == "no" && n.Data == "button"
		}
		if !named || !yes || !no {
			t.Errorf("%s: question named %t, yes that waits %t, no %t", name, named, yes, no)
		}
	}
}

// Digits are said one by one, not as a number.
func TestTheCodeIsSpelled(t *testing.T) {
	tree := document(t, "comparing", renderer(words.English).Page("/deed/1", states["comparing"], now))
	if !slices.ContainsFunc(elements(tree), func(n *html.Node) bool { return attribute(n, "data-spoken") == "The code is 4, 8, 2, 9, 1, 3" }) {
		t.Error("no element says the digits one by one")
	}
}
