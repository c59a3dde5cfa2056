package rebuild

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
)

// base is a node's folders, below one of the test.
type base struct {
	t                     *testing.T
	folder, order, memory string
	settings              settings.Settings
	chain                 []string
}

func newBase(t *testing.T, s settings.Settings) *base {
	t.Helper()
	b := &base{t: t, folder: t.TempDir(), settings: s}
	b.order, b.memory = filepath.Join(t.TempDir(), "rebuild.json"), t.TempDir()
	for _, folder := range s.Chain() {
		b.chain = append(b.chain, filepath.Join(b.folder, folder))
	}
	b.fill()
	return b
}

func (b *base) fill() {
	for _, folder := range b.chain {
		if err := errors.Join(os.MkdirAll(filepath.Join(folder, "index"), 0o700),
			os.WriteFile(filepath.Join(folder, "index", "0"), []byte("block"), 0o600)); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(b.chain[0]), "peers.dat"), []byte("peers"), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *base) put(text string) {
	if err := os.WriteFile(b.order, []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// start is what happens when the node starts.
func (b *base) start() []string {
	b.t.Helper()
	arguments, err := take(b.order, b.memory, b.settings.Reindex(), b.chain)
	if err != nil {
		b.t.Fatal(err)
	}
	return arguments
}

// left lists what is left of the chain, by name.
func (b *base) left() (names []string) {
	entries, err := os.ReadDir(filepath.Dir(b.chain[0]))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

var (
	core = settings.Settings{Program: settings.Core, Network: basev1.Network_NETWORK_SIGNET}
	btcd = settings.Settings{Program: settings.Btcd, Network: basev1.Network_NETWORK_SIGNET}
)

func TestAnOrderToReindexIsCarriedOutOnce(t *testing.T) {
	b := newBase(t, core)
	if got := b.start(); got != nil {
		t.Errorf("without an order: %v", got)
	}
	b.put(`{"id":"1"}`)
	if got := b.start(); !slices.Equal(got, []string{"-reindex"}) {
		t.Errorf("the first start: %v", got)
	}
	// The node crashes in the middle of it, again and again: it must not begin again from zero.
	for range 3 {
		if got := b.start(); got != nil {
			t.Fatalf("a start after a crash: %v", got)
		}
	}
	b.put(`{"id":"2"}`)
	if got := b.start(); !slices.Equal(got, []string{"-reindex"}) {
		t.Errorf("another order: %v", got)
	}
	if got := b.left(); !slices.Equal(got, []string{"blocks", "chainstate", "indexes", "peers.dat"}) {
		t.Errorf("left: %v", got)
	}
}

func TestAnOrderToResyncDeletesTheChainAndNothingElseOnce(t *testing.T) {
	for _, s := range []settings.Settings{core, btcd} {
		b := newBase(t, s)
		other := newBase(t, s)
		b.put(`{"id":"1","resync":true}`)
		if got := b.start(); got != nil {
			t.Errorf("%s: %v", s.Program, got)
		}
		if got := b.left(); !slices.Equal(got, []string{"peers.dat"}) {
			t.Errorf("%s: left: %v", s.Program, got)
		}
		b.fill() // new blocks have come
		b.start()
		if got := b.left(); len(got) != len(b.chain)+1 {
			t.Errorf("%s: the second start has left %v", s.Program, got)
		}
		if got := other.left(); len(got) != len(b.chain)+1 {
			t.Errorf("%s: in another folder %v are left", s.Program, got)
		}
	}
}

func TestAPowerCutInAResyncNeverLeavesAStateWithoutItsBlocks(t *testing.T) {
	for cut := range 3 {
		b := newBase(t, core)
		for _, folder := range b.chain[:cut] {
			if err := os.Rename(folder, folder+aside); err != nil {
				t.Fatal(err)
			}
		}
		b.start() // after the restart of the machine the order is gone
		left := b.left()
		if slices.Contains(left, "chainstate") && !slices.Contains(left, "blocks") || strings.Contains(strings.Join(left, " "), aside) {
			t.Errorf("cut %d: %v", cut, left)
		}
	}
}

func TestAnOrderThatOthersMayWriteToIsRefused(t *testing.T) {
	b := newBase(t, core)
	b.put(`{"id":"1","resync":true}`)
	if err := os.Chmod(b.order, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := take(b.order, b.memory, nil, b.chain); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if got := b.left(); len(got) != 4 {
		t.Errorf("left: %v", got)
	}
}
