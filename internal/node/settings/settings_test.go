package settings

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/core"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestTheSettingsOfANodeAreReadStrictly(t *testing.T) {
	got, err := Parse("# our node\n\nprogram btcd\n  network\tregtest\nblock-every 20s\n")
	want := Settings{Program: Btcd, Network: basev1.Network_NETWORK_REGTEST, Cache: DefaultCache, BlockEvery: 20 * time.Second}
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for text, want := range map[string]string{
		"":                               "must name a program and a network",
		"program btcd":                   "must name a program and a network",
		"network regtest":                "must name a program and a network",
		"program btcd\nnetwork mainnet":  "btcd is another implementation of Bitcoin",
		"program core\nnetwork simnet":   "simnet is unknown to Bitcoin Core",
		"program bcoin\nnetwork regtest": `line 1: there is no program "bcoin"`,
		"program btcd\nnetwork moon":     `line 2: there is no network "moon"`,
		"program btcd\nprogram core":     `line 2: "program" is set twice`,
		"program=btcd":                   "line 1: a line needs a name and one value",
		"program btcd now":               "line 1: a line needs a name and one value",
		"rpcuser eve":                    `line 1: there is no setting "rpcuser"`,
		"prune 1":                        "2 to 10000 GB",
		"prune off":                      "2 to 10000 GB",
		"accept everything":              "btcd-on-mainnet alone",
		"cache 3":                        "from 4 to 16384",
		"cache much":                     "from 4 to 16384",
		"block-every 20":                 "such as 20s",
		"block-every 1ms":                "such as 20s",
		"block-every 1500ms":             "such as 20s",
		"program core\nnetwork regtest\nblock-every 20s": "remove block-every",
		"program btcd\nnetwork signet\nblock-every 20s":  "remove block-every",
		"program \xff": "not UTF-8",
	} {
		if s, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v", text, s, err)
		}
	}
}

func TestABaseWithoutTheFileHasNoSettings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.conf")
	if _, err := readFrom(path); !errors.Is(err, ErrNone) {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(path, []byte("program btcd\nnetwork regtest\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := readFrom(path); err != nil || s.Program != Btcd {
		t.Errorf("%+v, %v", s, err)
	}
	// A user who may write to it would decide which program runs, and where it listens.
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if s, err := readFrom(path); err == nil || s != (Settings{}) {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestTheConfigurationIsRenderedFromTheSettings(t *testing.T) {
	for name, text := range map[string]string{
		"core-mainnet": "program core\nnetwork mainnet\ncache 4000", "core-pruned": "program core\nnetwork mainnet\nprune 100",
		"btcd-mainnet": "program btcd\nnetwork mainnet\nprune 2\naccept btcd-on-mainnet", "core-regtest": "program core\nnetwork regtest",
		"btcd-regtest": "program btcd\nnetwork regtest\nblock-every 20s", "btcd-signet": "program btcd\nnetwork signet",
	} {
		s, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		own := ""
		if name == "core-mainnet" {
			own = "prune=100000\nmaxconnections=20\n"
		}
		if again, err := Parse(s.Text()); err != nil || again != s {
			t.Errorf("%s: its text has %+v, %v", name, again, err)
		}
		if again, err := FromMessage(s.Message()); err != nil || again != s {
			t.Errorf("%s: its message has %+v, %v", name, again, err)
		}
		got := s.Render("PASSWORD", core.Methods, own)
		path := filepath.Join("testdata", name+".conf")
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if !strings.HasSuffix(got, own) {
			t.Errorf("%s: the owner's lines are not at its end", name)
		}
		if strings.Contains(strings.Join(s.Arguments("/program"), " "), "PASSWORD") {
			t.Errorf("%s: everybody can read the password", name)
		}
	}
}

// An order has values of lists and within bounds. Nothing else becomes a line.
func TestAnOrderHasAllowedValuesOnly(t *testing.T) {
	good := func() *basev1.NodeSettings {
		return &basev1.NodeSettings{Program: basev1.NodeSettings_PROGRAM_BTCD, Network: basev1.Network_NETWORK_SIGNET, CacheMib: 450}
	}
	if s, err := FromMessage(good()); err != nil || s.Text() != "program btcd\nnetwork signet\ncache 450\n" {
		t.Errorf("%q, %v", s.Text(), err)
	}
	for want, change := range map[string]func(*basev1.NodeSettings){
		"must name a program":               func(m *basev1.NodeSettings) { m.Program = 7 },
		"there is no network":               func(m *basev1.NodeSettings) { m.Network = 99 },
		"2 to 10000 GB":                     func(m *basev1.NodeSettings) { m.PruneGb = 1 },
		"from 4 to 16384":                   func(m *basev1.NodeSettings) { m.CacheMib = 0 },
		"a block takes":                     func(m *basev1.NodeSettings) { m.BlockEverySeconds = 1 << 31 },
		"remove block-every":                func(m *basev1.NodeSettings) { m.BlockEverySeconds = 20 },
		"another implementation of Bitcoin": func(m *basev1.NodeSettings) { m.Network = basev1.Network_NETWORK_MAINNET },
		"simnet is unknown":                 func(m *basev1.NodeSettings) { m.Program, m.Network = 1, basev1.Network_NETWORK_SIMNET },
		"there is no network \"an unknown":  func(m *basev1.NodeSettings) { m.Network = 0 },
	} {
		m := good()
		change(m)
		if s, err := FromMessage(m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %+v, %v", m, s, err)
		}
	}
	if _, err := FromMessage(nil); err == nil {
		t.Error("an order without settings is taken")
	}
}

// The file of the owner comes before that of root. If it is damaged, the other does not take its
// place: the owner would not know which node runs.
func TestSignedSettingsComeFirst(t *testing.T) {
	p := At(t.TempDir())
	for path, text := range map[string]string{p.File: "program btcd\nnetwork regtest\n", p.Signed: "program btcd\nnetwork signet\n"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if s, signed, err := p.Read(); err != nil || !signed || s.Network != basev1.Network_NETWORK_SIGNET {
		t.Errorf("%+v, %t, %v", s, signed, err)
	}
	if err := os.WriteFile(p.Signed, []byte("program"), 0o644); err != nil {
		t.Fatal(err)
	}
	if s, _, err := p.Read(); err == nil || !strings.Contains(err.Error(), p.Signed) {
		t.Errorf("%+v, %v", s, err)
	}
	if err := os.Remove(p.Signed); err != nil {
		t.Fatal(err)
	}
	if s, signed, err := p.Read(); err != nil || signed || s.Network != basev1.Network_NETWORK_REGTEST {
		t.Errorf("%+v, %t, %v", s, signed, err)
	}
}

// A Core that was taken over leaves no settings to the next one.
func TestCoreReadsNoSettingsFromItsOwnFolder(t *testing.T) {
	s := Settings{Program: Core, Network: basev1.Network_NETWORK_MAINNET}
	if arguments := s.Arguments("/program"); !slices.Contains(arguments, "-nosettings") {
		t.Errorf("it reads settings.json: %q", arguments)
	}
}
