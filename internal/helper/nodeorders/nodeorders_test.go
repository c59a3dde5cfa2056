package nodeorders

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/coretest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

func put(folder, name, text string) error {
	return os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600)
}

func TestTheUnitSaysHowAnInstallationWent(t *testing.T) {
	k := coretest.New(t)
	for name, c := range map[string]struct {
		spoil   func(incoming string) error
		refused string
	}{
		"good":                {func(string) error { return nil }, ""},
		"without the archive": {func(in string) error { return os.Remove(filepath.Join(in, archiveFile)) }, "archive: it does not exist"},
		"a job of something":  {func(in string) error { return put(in, jobFile, "x") }, "what was uploaded"},
		"without signatures":  {func(in string) error { return put(in, "SHA256SUMS.asc", "") }, "0 of the builder's"},
		"an old result":       {func(in string) error { return put(in, resultFile, `{"refused":"old"}`) }, ""},
	} {
		incoming, place := t.TempDir(), t.TempDir()
		path := k.Write("31.0", "ann", "bob", "cyd")
		for from, to := range map[string]string{
			path: archiveFile, filepath.Join(filepath.Dir(path), "SHA256SUMS"): "SHA256SUMS",
			filepath.Join(filepath.Dir(path), "SHA256SUMS.asc"): "SHA256SUMS.asc",
		} {
			if err := os.Rename(from, filepath.Join(incoming, to)); err != nil {
				t.Fatal(err)
			}
		}
		if err := put(incoming, jobFile, `{"name":"`+filepath.Base(path)+`"}`); err != nil {
			t.Fatal(err)
		}
		if err := c.spoil(incoming); err != nil {
			t.Fatal(err)
		}
		if err := Install(t.Context(), incoming, k.List(coretest.Builders...), "amd64", place); err != nil {
			t.Fatal(err)
		}
		r, err := readResult(filepath.Join(incoming, resultFile))
		if err != nil || !strings.Contains(r.Refused, c.refused) || (r.Refused == "") != (c.refused == "") {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if _, _, err := bitcoincore.Find(place); (err == nil) != (c.refused == "") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
