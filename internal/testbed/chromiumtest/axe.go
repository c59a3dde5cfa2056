//go:build linux

package chromiumtest

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/chromedp/chromedp"
)

// The cache that scripts/setup-tests fills, and the variable that replaces it (test/stage).
const (
	cacheVariable  = "BITBOX_BASE_STAGE_CACHE"
	cacheDirectory = "/var/cache/bitbox-base-stage"
)

// errNoAxe is why nothing is checked on a machine that was not set up for it.
var errNoAxe = errors.New("axe-core is missing; run scripts/setup-tests as root")

// Violation is a rule of axe-core that a page breaks.
type Violation struct {
	ID     string `json:"id"`
	Impact string `json:"impact"` // minor, moderate, serious or critical
	Help   string `json:"help"`
	// Elements are the HTML of those that break it, with what is wrong with each.
	Elements []string `json:"elements"`
}

// RequireAxe skips a test where there is no axe-core. In CI it fails instead.
func RequireAxe(t T) {
	t.Helper()
	switch _, err := axe(); {
	case err == nil:
	case errors.Is(err, errNoAxe) && os.Getenv("CI") == "":
		t.Skip(err)
	default:
		t.Fatal(err)
	}
}

// Axe returns what axe-core finds serious or critical on the page as it stands, of its rules for
// WCAG 2.2 AA and of its good practices.
func (tab *Tab) Axe() []Violation {
	tab.t.Helper()
	script, err := axe()
	if err != nil {
		tab.t.Fatal(err)
	}
	Eval[chromedp.Void](tab, script+"\n;undefined")
	return Eval[[]Violation](tab, `axe.run(document, {resultTypes: ["violations"], preload: false}).then((found) =>
		found.violations.filter((v) => v.impact === "serious" || v.impact === "critical").map((v) => ({
			id: v.id, impact: v.impact, help: v.help,
			elements: v.nodes.map((n) => n.html + ": " + (n.failureSummary || "").replace(/\s+/g, " ")),
		})))`)
}

// axe returns the script of axe-core, which test/window/axe-core names with the hash of its package.
var axe = sync.OnceValues(func() (string, error) {
	_, here, _, _ := runtime.Caller(0)
	pin, err := os.ReadFile(filepath.Join(filepath.Dir(here), "../../../test/window/axe-core"))
	if err != nil {
		return "", err
	}
	version, sum, _ := strings.Cut(strings.TrimSpace(string(pin)), " ")
	archive, err := os.ReadFile(filepath.Join(cmp.Or(os.Getenv(cacheVariable), cacheDirectory), "axe-core-"+version+".tgz"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", errNoAxe
	}
	if err != nil {
		return "", err
	}
	return script(archive, sum)
})

// script returns the script in a package of axe-core, if the package has this SHA-512.
func script(archive []byte, sum string) (string, error) {
	if got := sha512.Sum512(archive); hex.EncodeToString(got[:]) != sum {
		return "", fmt.Errorf("the package of axe-core has the hash %x, want %s; delete it from the cache and run scripts/setup-tests", got, sum)
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return "", fmt.Errorf("read the package of axe-core: %w", err)
	}
	for files := tar.NewReader(unzipped); ; {
		file, err := files.Next()
		if err != nil {
			return "", fmt.Errorf("look for the script in the package of axe-core: %w", err)
		}
		if file.Name == "package/axe.min.js" {
			text, err := io.ReadAll(files)
			return string(text), err
		}
	}
}
