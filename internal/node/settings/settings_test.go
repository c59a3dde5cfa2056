package settings

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestTheSettingsOfANodeAreReadStrictly(t *testing.T) {
	got, err := Parse("# our node\n\nprogram btcd\n  network\tregtest\nblock-every 20s\n")
	want := Settings{Program: Btcd, Network: basev1.Network_NETWORK_REGTEST, Cache: defaultCache, BlockEvery: 20 * time.Second}
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
		"cache 3":                        "from 4 to 16384",
		"cache much":                     "from 4 to 16384",
		"block-every 20":                 "such as 20s",
		"block-every 1ms":                "such as 20s",
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
		"core-mainnet": "program core\nnetwork mainnet\ncache 4000", "core-regtest": "program core\nnetwork regtest",
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
		got := s.Render("PASSWORD", own)
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
