package nodesettings

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/turns"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
)

// An owner has signed that a small disk is used: the settings follow, and only as far as they must.
func TestTheNodeOfASmallDiskPrunes(t *testing.T) {
	const mainnet = "program core\nnetwork mainnet\ncache 450\n"
	for name, c := range map[string]struct {
		before, own, want string
		size              uint64
	}{
		"the whole chain": {before: mainnet, size: 512_000_000_000, want: mainnet + "prune 440\n"},
		"pruned":          {before: mainnet + "prune 50\n", size: 512_000_000_000},
		"no settings":     {size: 512_000_000_000},
		"of root's lines": {before: mainnet, own: "prune=550\n", size: 512_000_000_000},
		"another network": {before: "program btcd\nnetwork signet\ncache 450\n", size: 512_000_000_000},
	} {
		place := settings.At(t.TempDir())
		for path, text := range map[string]string{place.File: c.before, place.Own: c.own, place.Signed: ""} {
			err := os.MkdirAll(filepath.Dir(path), 0o755)
			if text != "" {
				err = errors.Join(err, os.WriteFile(path, []byte(text), 0o644))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		s := New(Config{Place: place, Turn: turns.New(), Log: slog.New(slog.DiscardHandler)})
		for range 2 { // the order is repeated
			if err := s.Fit(t.Context(), c.size); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		text, err := os.ReadFile(place.Signed)
		if string(text) != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%s: the settings are %q, %v", name, text, err)
		}
	}
}

func TestTheDiskIsKnownBeforeTheNodeHasAFolder(t *testing.T) {
	folder := t.TempDir()
	want, err := space(folder)
	if err != nil || want == 0 {
		t.Fatal(want, err)
	}
	if got, err := space(filepath.Join(folder, "of the node")); err != nil || got != want {
		t.Errorf("it has %d bytes, %v, not %d", got, err, want)
	}
	if got, err := space(filepath.Join(folder, "gone", "of the node")); err == nil {
		t.Errorf("a disk that is not there has %d bytes", got)
	}
}
