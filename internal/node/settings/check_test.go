package settings

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// put writes files below the folder of the node's data. A name that ends in / is a folder.
func put(t *testing.T, data string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(data, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// hidden is what Bitcoin Core writes with a key of its own.
func hidden(text, key string) string {
	b := []byte(text)
	for i := range b {
		b[i] ^= key[i%len(key)]
	}
	return string(b)
}

func TestDataOfAnotherProgramOrNetworkIsRefused(t *testing.T) {
	const main, test, key = "\xf9\xbe\xb4\xd9 a block", "\xfa\xbf\xb5\xda a block", "12345678"
	core := Settings{Program: Core, Network: basev1.Network_NETWORK_MAINNET, Cache: DefaultCache}
	btcd := Settings{Program: Btcd, Network: basev1.Network_NETWORK_SIGNET, Cache: DefaultCache}
	for name, c := range map[string]struct {
		s     Settings
		files map[string]string
		want  string
	}{
		"nothing yet":             {core, nil, ""},
		"an empty folder":         {core, map[string]string{"core/": ""}, ""},
		"its own blocks":          {core, map[string]string{"core/blocks/blk00000.dat": main, "core/chainstate/": ""}, ""},
		"its own blocks, hidden":  {core, map[string]string{"core/blocks/blk00000.dat": hidden(main, key), "core/blocks/xor.dat": key}, ""},
		"a file that is reserved": {core, map[string]string{"core/blocks/blk00000.dat": "\x00\x00\x00\x00", "core/blocks/xor.dat": key}, ""},
		"another network beside":  {core, map[string]string{"core/regtest/blocks/blk00000.dat": test}, ""},
		"the other program's own": {core, map[string]string{"btcd/data/signet/blocks_ffldb/000000000.fdb": test}, ""},
		"blocks of regtest": {core, map[string]string{"core/blocks/blk00000.dat": hidden(test, key), "core/blocks/xor.dat": key},
			"are of regtest, not of mainnet"},
		"something else":        {core, map[string]string{"core/blocks/blk00003.dat": "a picture"}, "are of an unknown network"},
		"Core's, given to btcd": {btcd, map[string]string{"btcd/chainstate/": ""}, "has the data of Bitcoin Core, which btcd cannot use"},
		"Core's signet":         {btcd, map[string]string{"btcd/signet/chainstate/": ""}, "has the data of Bitcoin Core"},
		"btcd's, given to Core": {core, map[string]string{"core/data/": ""}, "has the data of btcd, which Bitcoin Core cannot use"},
		"btcd's other network": {btcd, map[string]string{"btcd/data/signet/blocks_ffldb/000000000.fdb": main},
			"are of mainnet, not of signet"},
	} {
		data := t.TempDir()
		put(t, data, c.files)
		switch err := c.s.CheckData(data); {
		case c.want == "" && err != nil, c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The folder is written by a program that may have been taken over. Nothing in it leads elsewhere,
// or has its reader wait.
func TestALookAtTheNodesDataLeadsNowhereElse(t *testing.T) {
	s := Settings{Program: Core, Network: basev1.Network_NETWORK_MAINNET, Cache: DefaultCache}
	elsewhere := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(elsewhere, []byte("\xf9\xbe\xb4\xd9"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(path string) error{
		"a link":   func(path string) error { return os.Symlink(elsewhere, path) },
		"a pipe":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a folder": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		data := t.TempDir()
		put(t, data, map[string]string{"core/blocks/": ""})
		if err := plant(filepath.Join(data, "core/blocks/blk00000.dat")); err != nil {
			t.Fatal(err)
		}
		if err := s.CheckData(data); err == nil {
			t.Errorf("%s was read", name)
		}
	}
	// The folder itself may be a link, which root would have to make.
	data := t.TempDir()
	put(t, data, map[string]string{"core/": ""})
	if err := os.Symlink(filepath.Dir(elsewhere), filepath.Join(data, "core/blocks")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(elsewhere, filepath.Join(filepath.Dir(elsewhere), "blk00000.dat")); err != nil {
		t.Fatal(err)
	}
	if err := s.CheckPruned(data); err != nil {
		t.Errorf("a link out of the folder was followed: %v", err)
	}
}

// A pipe in the place of a folder has nobody wait: the test would not end.
func TestAPipeInThePlaceOfAFolderHasNobodyWait(t *testing.T) {
	main := Settings{Program: Core, Network: basev1.Network_NETWORK_MAINNET, Cache: DefaultCache}
	signet := Settings{Program: Core, Network: basev1.Network_NETWORK_SIGNET, Cache: DefaultCache}
	btcd := Settings{Program: Btcd, Network: basev1.Network_NETWORK_SIGNET, Cache: DefaultCache}
	for path, s := range map[string]Settings{
		"core": main, "core/blocks": main, "core/signet": signet, "core/signet/blocks": signet,
		"btcd": btcd, "btcd/data/signet/blocks_ffldb": btcd,
	} {
		data := t.TempDir()
		put(t, data, map[string]string{filepath.Dir(path) + "/": ""})
		if err := syscall.Mkfifo(filepath.Join(data, path), 0o600); err != nil {
			t.Fatal(err)
		}
		err := s.CheckData(data)
		if wrong := path == string(s.Program); wrong != (err != nil) {
			t.Errorf("a pipe as %s: %v", path, err)
		}
	}
}

func TestALinkInThePlaceOfTheFolderIsNotFollowed(t *testing.T) {
	s := Settings{Program: Core, Network: basev1.Network_NETWORK_MAINNET, Cache: DefaultCache}
	data := t.TempDir()
	if err := os.Symlink(t.TempDir(), filepath.Join(data, "core")); err != nil {
		t.Fatal(err)
	}
	if err := s.CheckData(data); err == nil {
		t.Error("a link in the place of the folder was followed")
	}
}

func TestBlocksThatWereDeletedAreMissed(t *testing.T) {
	s := Settings{Program: Core, Network: basev1.Network_NETWORK_MAINNET, Cache: DefaultCache}
	data := t.TempDir()
	put(t, data, map[string]string{"core/blocks/blk00000.dat": "", "core/blocks/blk00007.dat": "", "core/blocks/rev00000.dat": ""})
	if err := s.CheckPruned(data); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(data, "core/blocks/blk00000.dat")); err != nil {
		t.Fatal(err)
	}
	if err := s.CheckPruned(data); err == nil || !strings.Contains(err.Error(), "has deleted old blocks") {
		t.Errorf("%v", err)
	}
	s.Prune = 100
	if err := s.CheckPruned(data); err != nil {
		t.Error(err)
	}
}

func TestANodeIsPrunedToFitItsDisk(t *testing.T) {
	core := func(prune int) Settings {
		return Settings{Program: Core, Network: basev1.Network_NETWORK_MAINNET, Prune: prune, Cache: 450}
	}
	signet := Settings{Program: Btcd, Network: basev1.Network_NETWORK_SIGNET}
	for _, c := range []struct {
		s     Settings
		total uint64
		want  Settings
	}{
		{core(0), 2_000_398_934_016, core(0)}, {core(0), 512_110_190_592, core(440)}, {core(100), 512_110_190_592, core(100)},
		{core(500), 128_035_676_160, core(95)}, {core(0), 32_000_000_000, core(8)}, {signet, 64_000_000_000, signet},
	} {
		got, err := c.s.Fit(c.total)
		if err != nil || got != c.want || got.CheckSpace(c.total) != nil {
			t.Errorf("%+v on %d: %+v, %v", c.s, c.total, got, err)
		}
	}
	if got, err := core(0).Fit(16_000_000_000); err == nil || got != core(0) {
		t.Errorf("on a disk for nothing: %+v, %v", got, err)
	}
}

func TestADiskThatIsTooSmallIsRefused(t *testing.T) {
	whole := Settings{Program: Core, Network: basev1.Network_NETWORK_MAINNET}
	pruned := Settings{Program: Core, Network: basev1.Network_NETWORK_MAINNET, Prune: 100}
	for _, c := range []struct {
		s     Settings
		total uint64
		want  string
	}{
		{whole, 2_000_398_934_016, ""},
		{whole, 512_110_190_592, "has 512 GB, and mainnet needs 1000 GB; give it a larger disk, or have the node keep"},
		{pruned, 128_035_676_160, ""}, {pruned, 64_000_000_000, "mainnet needs 120 GB"},
		{Settings{Program: Btcd, Network: basev1.Network_NETWORK_SIGNET}, 64_000_000_000, ""},
	} {
		err := c.s.CheckSpace(c.total)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v on %d: %v", c.s, c.total, err)
		}
	}
}
