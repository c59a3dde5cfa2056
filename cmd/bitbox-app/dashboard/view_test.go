package dashboard

import (
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
)

var update = flag.Bool("update", false, "rewrite the screens in testdata")

func TestMain(m *testing.M) {
	time.Local = time.UTC
	os.Exit(leaktest.Run(m))
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func someInfo(role basev1.Role) *basev1.GetInfoResponse {
	temperature := 48.2
	return &basev1.GetInfoResponse{
		Name: "kitchen", SoftwareVersion: "1.2.3", MachineUptimeSeconds: 3*86400 + 4*3600, LoadAverage: []float64{0.1, 0.25, 1.5},
		MemoryTotalBytes: 4 << 30, MemoryAvailableBytes: 3 << 29, DiskTotalBytes: 64 << 30, DiskAvailableBytes: 50 << 30,
		Addresses: []string{"192.168.1.20", "fd00::1234:5678:9abc:def0"}, TemperatureCelsius: &temperature,
		Caller: &basev1.App{Id: "5f2c9a7e01d4b863", Name: "Laptop", Role: role},
	}
}

func someLook(role basev1.Role) owner.Look {
	return owner.Look{
		Info: someInfo(role),
		Apps: []*basev1.App{
			{Id: "5f2c9a7e01d4b863", Name: "Laptop", Role: role, IsCaller: true, Sessions: 1,
				PairedAt: timestamppb.New(noon.Add(-90 * 24 * time.Hour))},
			{Id: "a1", Name: "Anna's phone", Role: basev1.Role_ROLE_OWNER, Sessions: 1, PairedAt: timestamppb.New(noon.Add(-48 * time.Hour))},
			{Id: "a2", Name: "Wall display", Role: basev1.Role_ROLE_VIEWER, PairedAt: timestamppb.New(noon.Add(-50 * time.Hour)),
				LastSeenAt: timestamppb.New(noon.Add(-90 * time.Minute))},
		},
		Window: &basev1.Window{},
		Access: &owner.Access{
			Revision: 7, Doors: []owner.Door{{Kind: "entry", Port: 8845}},
			Keys: []string{"anna@laptop", "SHA256:uNiVztksCsDhcc0u9e8BrfJqxMpUJHK8D+T8f3vD0Uo"},
			Bans: words.Saying("values.bans", 5, words.Seconds(600), words.Seconds(3600)), Internet: []string{"updates", "time"},
		},
		HasBans: true,
	}
}

// someNode catches up, and does not tell everything.
func someNode() *basev1.Node {
	in, out := uint32(3), uint32(10)
	size, total, available := uint64(310<<30), uint64(2000<<30), uint64(1500<<30)
	headers, left, transactions, bytes := uint64(974_512), uint64(26*3600), uint64(0), uint64(0)
	return &basev1.Node{
		State: basev1.Node_STATE_BEHIND, Software: "Bitcoin Core", Version: "28.1.0", Unmaintained: true,
		Network: basev1.Network_NETWORK_MAINNET, Height: 512_004, Target: headers, Headers: &headers, Progress: 0.3871, LeftSeconds: &left,
		BestBlockTime: timestamppb.New(noon.Add(-8 * 365 * 24 * time.Hour)), AskedAt: timestamppb.New(noon), PeersIn: &in, PeersOut: &out,
		MempoolTransactions: &transactions, MempoolBytes: &bytes, SizeBytes: &size, DiskTotalBytes: &total, DiskAvailableBytes: &available,
		WalletServer: &basev1.WalletServer{Height: 500_000, Target: uint32(headers), Rebuilt: true, Reason: "the node is still catching up"},
		Warnings:     []string{"This node warns of something that it takes more words for than fit into one row of this screen."},
	}
}

func stoppedNode() *basev1.Node {
	n := someNode()
	n.State, n.Reason, n.LeftSeconds = basev1.Node_STATE_STOPPED, "Bitcoin Core does not run", nil
	return n
}

func noNode() *basev1.Node {
	return &basev1.Node{State: basev1.Node_STATE_NOT_INSTALLED, Reason: "this Base has no mainnet node: Bitcoin Core is not installed"}
}

func withNode(t *testing.T, n *basev1.Node) *stage {
	s := house(t)
	s.kitchen(func(b *owner.Base) { b.Look.Node = n })
	return s
}

func someFindings() []*basev1.Finding {
	return []*basev1.Finding{
		{
			Id: "port-9999", Severity: basev1.Finding_SEVERITY_CRITICAL, Title: "Something listens on TCP port 9999",
			Expected: "nothing listens there",
			Found:    "nc (pid 4711)\nsince 11:40", Why: "It answers strangers, and the posture does not know it.", Fix: "Kill it.",
			Fixable: true,
		},
		{Id: "clock", Severity: basev1.Finding_SEVERITY_WARNING, Title: "The clock is not synchronised", Expected: "synchronised", Found: "not",
			Why: "Times in the log are wrong.", Fix: "Look at the network."},
		{Id: "reboot", Severity: basev1.Finding_SEVERITY_INFO, Title: "A restart is due", Fix: "Restart it."},
		{Id: "disk", Severity: basev1.Finding_SEVERITY_INFO, Title: "The disk is old", Fix: "Buy one."},
	}
}

// stage is a model of a house with some Bases.
type stage struct {
	*model
	t *testing.T
}

func newStage(t *testing.T) *stage { return &stage{newModel(noon, "", false), t} }

func (s *stage) hears(messages ...any) []any {
	var orders []any
	for _, message := range messages {
		orders = append(orders, s.update(s.now, message)...)
	}
	return orders
}

// becomes changes what the owner knows.
func (s *stage) becomes(change func(*owner.State)) {
	next := s.state
	next.Bases, next.Nearby, next.Deeds = slices.Clone(next.Bases), slices.Clone(next.Nearby), slices.Clone(next.Deeds)
	change(&next)
	s.hears(next)
}

// kitchen changes the Base of this name.
func (s *stage) kitchen(change func(*owner.Base)) {
	s.becomes(func(o *owner.State) {
		change(&o.Bases[slices.IndexFunc(o.Bases, func(b owner.Base) bool { return b.Name == "kitchen" })])
	})
}

// begins presses keys of which the last begins a deed, and has it under way.
func (s *stage) begins(keys ...string) *stage {
	s.t.Helper()
	orders := s.types(keys...)
	if len(orders) != 1 {
		s.t.Fatalf("%v order %v", keys, orders)
	}
	order := orders[0].(do)
	s.becomes(func(o *owner.State) {
		number := uint64(len(o.Deeds) + 1)
		s.begun(order, number, nil)
		o.Deeds = append([]owner.DeedState{{Number: number, Base: order.base, Deed: order.deed, Began: s.now}}, o.Deeds...)
	})
	return s
}

// goesOn changes the newest deed.
func (s *stage) goesOn(change func(*owner.DeedState)) *stage {
	s.becomes(func(o *owner.State) { change(&o.Deeds[0]) })
	return s
}

func (s *stage) asks(changes ...client.PostureChange) *stage {
	return s.goesOn(func(d *owner.DeedState) { d.Question = &owner.Question{ID: 1, Kind: owner.Consent, Changes: changes} })
}

func (s *stage) fails(err error) *stage {
	return s.goesOn(func(d *owner.DeedState) { d.Ended, d.Question, d.Err = s.now, nil, err })
}

// later lets time pass.
func (s *stage) later(d time.Duration) { s.update(s.now.Add(d), s.state) }

// types presses keys, each after a while.
func (s *stage) types(keys ...string) []any {
	var orders []any
	for _, key := range keys {
		s.later(2 * lookTime)
		text := ""
		if len(key) == 1 {
			text = key
		}
		orders = append(orders, s.update(s.now, press{key, text})...)
	}
	return orders
}

func house(t *testing.T) *stage {
	s := newStage(t)
	paired := func(id byte, name string, state client.PairingState) owner.Base {
		return owner.Base{Base: client.Base{Name: name, PublicKey: [32]byte{id}, State: state, Role: basev1.Role_ROLE_OWNER}}
	}
	garage, kitchen, old := paired(1, "garage", client.Active), paired(2, "kitchen", client.Active), paired(3, "old one", client.Revoked)
	garage.Connection, garage.Again = owner.Lost, noon.Add(16*time.Second)
	garage.Err = errors.New(`the Base "garage" could not be reached (no route to host) at 192.168.1.9:8845, nor found on the local network; check that it is on and on this network`)
	old.Connection = owner.Ended
	kitchen.Connection, kitchen.Look, kitchen.At = owner.Connected, someLook(basev1.Role_ROLE_OWNER), noon
	kitchen.HasAudit, kitchen.AuditedAt = true, noon
	kitchen.Events = []owner.Event{
		someEvent(noon.Add(-24*time.Hour), &basev1.Event{Event: &basev1.Event_AppPaired{AppPaired: &basev1.AppPairedEvent{
			App: &basev1.App{Id: "a2", Name: "Wall display", Role: basev1.Role_ROLE_VIEWER}}}}),
		someEvent(noon, &basev1.Event{Event: &basev1.Event_SessionStarted{SessionStarted: &basev1.SessionStartedEvent{
			App: &basev1.App{Id: "a1", Name: "Anna's phone"}}}}),
	}
	s.hears(owner.State{Bases: []owner.Base{garage, kitchen, old}, Nearby: []owner.Announced{
		{ID: 0, Nearby: client.Nearby{
			Name: "BitBox Base", Addresses: []string{"[fe80::1%eth0]:8845", "192.168.1.31:8845"}, ProtocolVersion: 1,
			PairingOpen: true}},
		{ID: 1, Nearby: client.Nearby{Name: "kitchen", Addresses: []string{"192.168.1.20:8845"}, ProtocolVersion: 1, Known: "kitchen"}},
		{ID: 2, Nearby: client.Nearby{Name: "neighbour's", Addresses: []string{"192.168.1.77:8845"}, ProtocolVersion: 1}},
	}})
	s.types("down")
	return s
}

func someEvent(at time.Time, e *basev1.Event) owner.Event {
	return owner.Event{First: at, At: at, Times: 1, Event: e}
}

// busy is a house in which much happens at once.
func busy(t *testing.T) *stage {
	s := house(t)
	look := someLook(basev1.Role_ROLE_OWNER)
	look.Access.Doors = append(look.Access.Doors, owner.Door{Kind: "electrum", Port: 8845, Shared: true, Left: 23*time.Hour + 50*time.Minute})
	look.Access.Doors = append(look.Access.Doors, owner.Door{Kind: "electrum", Port: 50002, ForGood: true, From: []string{"192.168.1.0/24"},
		Certificate: strings.Repeat("a1b2", 16)})
	look.Access.SSH, look.Access.SSHLeft = true, 118*time.Minute
	look.Access.HostKey, _ = base64.StdEncoding.DecodeString("AAAAC3NzaC1lZDI1NTE5AAAAIDvpxXGDAu0w+FUDIb/ygcy6q1chR7o1fzWvDDnfwJSA")
	look.Access.Trying, look.Access.UndoneIn = true, 42*time.Second
	look.Access.Tried = []client.PostureChange{{Opens: true, Done: "SSH was switched on for 2 h, for the keys anna@laptop."}}
	look.Window = &basev1.Window{Open: true, RemainingMs: 171_000}
	look.Bans = []*basev1.Ban{
		{Jail: "sshd", Address: "192.0.2.7", Until: timestamppb.New(noon.Add(50 * time.Minute))},
		{Jail: "bitbox-base-handshake", Address: "2001:db8::77"},
	}
	running, memory := basev1.Service_STATE_RUNNING, uint64(80<<20)
	look.Services = []*basev1.Service{
		{Name: "bitcoind", State: running, MemoryBytes: &memory, Since: timestamppb.New(noon.Add(-time.Hour))},
		{Name: "electrs", State: basev1.Service_STATE_FAILED, Reason: "exit status 1", Restarts: 5},
	}
	for n := range 30 {
		look.Samples = append(look.Samples, &basev1.Sample{Load: float64(n % 9), MemoryTotalBytes: 100, MemoryAvailableBytes: uint64(90 - n)})
	}
	s.kitchen(func(b *owner.Base) {
		b.Look, b.At, b.Findings, b.AuditedAt = look, s.now, someFindings(), s.now
		b.Addresses = []string{"192.168.1.20:8845"}
	})
	return s
}

var code = client.Code{Digits: "482 913", BaseName: "BitBox Base", AppName: "Laptop", Role: basev1.Role_ROLE_OWNER}

// screens are what a user may see.
var screens = map[string]func(*testing.T) *stage{
	"nothing": func(t *testing.T) *stage {
		s := newStage(t)
		s.hears(owner.State{})
		return s
	},
	"overview":      house,
	"overview-busy": busy,
	"access":        func(t *testing.T) *stage { s := busy(t); s.types("2"); return s },
	"access-down":   func(t *testing.T) *stage { s := busy(t); s.types("2", "pgdown"); return s },
	"apps":          func(t *testing.T) *stage { s := busy(t); s.types("3"); return s },
	"security":      func(t *testing.T) *stage { s := busy(t); s.types("4"); return s },
	"security-down": func(t *testing.T) *stage { s := busy(t); s.types("4", "pgdown", "pgdown", "pgdown"); return s },
	"events": func(t *testing.T) *stage {
		s := busy(t)
		s.kitchen(func(b *owner.Base) { b.Missing = 12 })
		s.types("5")
		return s
	},
	"services":     func(t *testing.T) *stage { s := busy(t); s.types("6"); return s },
	"node":         func(t *testing.T) *stage { s := withNode(t, someNode()); s.types("6"); return s },
	"node-stopped": func(t *testing.T) *stage { return withNode(t, stoppedNode()) },
	"node-none":    func(t *testing.T) *stage { s := withNode(t, noNode()); s.types("6"); return s },
	"silent":       func(t *testing.T) *stage { s := house(t); s.types("up"); return s },
	"revoked":      func(t *testing.T) *stage { s := house(t); s.types("down"); return s },
	"stranger":     func(t *testing.T) *stage { s := house(t); s.types("down", "down"); return s },
	"unfollowed": func(t *testing.T) *stage {
		s := house(t)
		s.kitchen(func(b *owner.Base) { b.Connection, b.Look = owner.Unfollowed, owner.Look{} })
		return s
	},
	"lying": func(t *testing.T) *stage {
		s := house(t)
		s.kitchen(func(b *owner.Base) {
			b.Look.Access, b.Look.Lie = nil, errors.New("the report is older than what this App has seen before")
		})
		return s
	},
	"locked-down": func(t *testing.T) *stage {
		s := house(t)
		s.kitchen(func(b *owner.Base) { b.Look.Access.Lockdown, b.Look.Access.PairingClosed = true, true })
		return s
	},
	"viewer": func(t *testing.T) *stage {
		s := house(t)
		s.kitchen(func(b *owner.Base) { b.Look, b.HasAudit = someLook(basev1.Role_ROLE_VIEWER), false })
		s.types("L")
		return s
	},
	"question": func(t *testing.T) *stage {
		return busy(t).begins("c").asks(
			client.PostureChange{Opens: true, Text: "SSH will be switched on for 2 h, for the keys anna@laptop."},
			client.PostureChange{Text: "The pairing window will be closed."})
	},
	"question-early": func(t *testing.T) *stage {
		s := busy(t).begins("o").asks((owner.Deed{Kind: owner.CloseWindow}).Change())
		s.hears(press{"y", "y"})
		return s
	},
	"lockdown": func(t *testing.T) *stage {
		return busy(t).begins("L").asks((owner.Deed{Kind: owner.Lockdown}).Change())
	},
	"working": func(t *testing.T) *stage {
		return busy(t).begins("c").goesOn(func(d *owner.DeedState) {
			d.Steps = []words.Said{words.Plain("signed"), words.Plain("the new rules are examined")}
		})
	},
	"refused": func(t *testing.T) *stage {
		return busy(t).begins("c").fails(errors.New("the Base refused: it is too late"))
	},
	"choice":     func(t *testing.T) *stage { s := busy(t); s.types("b", "down"); return s },
	"choosing":   func(t *testing.T) *stage { s := house(t); s.types("p", "down"); return s },
	"typing":     func(t *testing.T) *stage { s := house(t); s.types("p", "a", "1", "9", "2", "."); return s },
	"requesting": func(t *testing.T) *stage { s := asking(t); s.later(71 * time.Second); return s },
	"requesting-closed": func(t *testing.T) *stage {
		return house(t).begins("down", "down", "down", "enter").goesOn(func(d *owner.DeedState) { d.RequestNumber = "024 219" })
	},
	"comparing": comparingStage,
	"comparing-early": func(t *testing.T) *stage {
		s := comparingStage(t)
		s.hears(press{"y", "y"})
		return s
	},
	"waiting": saysYes,
	"paired": func(t *testing.T) *stage {
		return saysYes(t).goesOn(func(d *owner.DeedState) {
			d.Ended, d.Made = noon, &client.Base{Name: "BitBox Base", State: client.Active, AppName: "Laptop", Role: basev1.Role_ROLE_OWNER}
		})
	},
	"interfered": func(t *testing.T) *stage {
		s := comparingStage(t)
		s.types("n")
		return s.fails(&client.Error{Kind: client.ErrInterference,
			Text: "the code was not confirmed in this App; if the Base showed a different one, somebody may have interfered; nothing was stored, and this App does not try again by itself; before you do, make sure that this is your Base"})
	},
	"help": func(t *testing.T) *stage { s := house(t); s.types("?"); return s },
}

func asking(t *testing.T) *stage {
	return house(t).begins("down", "down", "enter").goesOn(func(d *owner.DeedState) { d.RequestNumber = "024 219" })
}

func comparingStage(t *testing.T) *stage {
	return asking(t).goesOn(func(d *owner.DeedState) { d.Question = &owner.Question{ID: 1, Kind: owner.Compare, Code: code} })
}

func saysYes(t *testing.T) *stage {
	s := comparingStage(t)
	s.types("y")
	return s.goesOn(func(d *owner.DeedState) { d.Compared, d.Question, d.Agreed = d.Question, nil, true })
}

func TestScreens(t *testing.T) {
	for name, stage := range screens {
		t.Run(name, func(t *testing.T) {
			var got strings.Builder
			for _, sized := range []size{{80, 24}, {120, 40}, {60, 15}} {
				s := stage(t)
				s.hears(sized)
				fmt.Fprintf(&got, "%d x %d\n%s\n", sized.width, sized.height, shown(s.view()))
			}
			compareScreens(t, name, got.String())
		})
	}
}

// The terminal's other input is shown by its escape sequences.
func TestScreensWithStyles(t *testing.T) {
	for _, name := range []string{"overview-busy", "comparing", "lockdown", "silent"} {
		t.Run(name, func(t *testing.T) {
			text := render(screens[name](t).view(), true)
			compareScreens(t, name+"-styles", strings.ReplaceAll(text, "\x1b", "␛")+"\n")
		})
	}
}

func TestScreensInASCII(t *testing.T) {
	for name, stage := range screens {
		s := stage(t)
		s.ascii = true
		text := render(s.view(), false)
		for _, r := range text {
			if r != '\n' && (r < ' ' || r > '~') {
				t.Errorf("%s: there is %q", name, r)
			}
		}
		if name == "overview-busy" || name == "comparing" {
			compareScreens(t, name+"-ascii", shown(s.view())+"\n")
		}
	}
}

func TestAScreenThatIsTooSmallSaysSo(t *testing.T) {
	for _, sized := range []size{{39, 24}, {80, 10}, {20, 5}, {1, 1}, {0, 0}} {
		s := comparingStage(t)
		s.hears(sized)
		got := shown(s.view())
		if sized.width >= 20 && !strings.Contains(strings.ReplaceAll(got, "\n", " "), "Too small") || strings.Contains(got, "913") {
			t.Errorf("%v shows\n%s", sized, got)
		}
		if orders := s.types("y"); len(orders) > 0 {
			t.Errorf("%v: a key answered what nobody saw: %v", sized, orders)
		}
	}
}

// shown is a screen without the spaces at the ends of its rows.
func shown(lines []line) string {
	rows := strings.Split(render(lines, false), "\n")
	for n := range rows {
		rows[n] = strings.TrimRight(rows[n], " ")
	}
	return strings.Join(rows, "\n")
}

func compareScreens(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is not as in testdata (go test -update rewrites it):\n%s", name, diff)
	}
}

func BenchmarkView(b *testing.B) {
	s := busy(&testing.T{})
	for b.Loop() {
		render(s.view(), true)
	}
}

func TestTheDocumentNamesTheKeysOfTheHelp(t *testing.T) {
	document, err := os.ReadFile("../../../docs/app/dashboard.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keyTable {
		if row := "\n| " + k.keys + " | " + k.what + " |\n"; !strings.Contains(string(document), row) {
			t.Errorf("docs/app/dashboard.md has no row %q", strings.TrimSpace(row))
		}
	}
}
