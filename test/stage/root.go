//go:build linux

package stage

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/setup"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/debianroot"
)

const (
	// cacheVariable names another directory for the root than cacheDirectory. Only root
	// writes there, so it is in nobody's home.
	cacheVariable  = "BITBOX_BASE_STAGE_CACHE"
	cacheDirectory = "/var/cache/bitbox-base-stage"
	// rootVersion changes when the root is made in another way.
	rootVersion = "1"
)

// minimal is what makes a Debian boot, beside what a Base needs
// (packaging/packages).
var minimal = []string{"systemd", "systemd-sysv", "procps"}

// repository is the top of the source tree, from the place of this file.
var repository = func() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}()

// product is the run that holds the layer of our files, for as long as this
// process lives.
var product *run

// together is how many parallel tests run at the same time. A test with a Base waits for leases,
// bans, boots and blocks most of its time, so they are more than there are processors.
const together = 4

// Main runs a package's tests, for its TestMain, and clears up what they share.
// Without it the next run does that.
func Main(m *testing.M) int {
	flag.Parse()
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "test.parallel" })
	if !said {
		_ = flag.Set("test.parallel", strconv.Itoa(together)) // its only error is that there is no such flag
	}
	code := m.Run()
	if err := Clear(); err != nil {
		fmt.Fprintln(os.Stderr, "stage: clear up:", err)
		return 1
	}
	return code
}

// Clear clears up what the stages of this process share.
func Clear() error {
	if product == nil {
		return nil
	}
	return product.clear()
}

// productLayers returns the layers of a Base's root, the topmost first. They are
// made once for a process.
var productLayers = sync.OnceValues(func() ([]string, error) {
	debian, err := debianRoot()
	if err != nil {
		return nil, err
	}
	layer, err := installProduct(debian)
	if err != nil {
		return nil, fmt.Errorf("install our files into the root: %w", err)
	}
	return []string{layer, debian}, nil
})

// debianLayers returns the one layer of a root with nothing of ours in it. That takes no
// compiler, which root may not have.
func debianLayers() ([]string, error) {
	debian, err := debianRoot()
	return []string{debian}, err
}

// packages reads packaging/packages.
func packages() ([]string, error) {
	content, err := os.ReadFile(filepath.Join(repository, "packaging", "packages"))
	if err != nil {
		return nil, err
	}
	return append(slices.Clone(minimal), debianroot.ReadPackages(string(content))...), nil
}

// Debian returns the directory of a root with Debian's packages in it, and nothing of
// ours, for tests that need one of its programs. It is not to be written to.
func Debian() (string, error) { return debianRoot() }

// debianRoot returns the directory of the Debian that a Base is made of.
func debianRoot() (string, error) {
	names, err := packages()
	if err != nil {
		return "", err
	}
	return cachedRoot(names)
}

// OlderDebian returns the directory of a root of another Debian than a Base's, with what it
// always has and nothing else. It is not to be written to.
func OlderDebian(suite string) (string, error) { return cachedRootOf(suite, []string{"apt"}) }

// cachedRoot returns the directory of a root with Debian's packages in it. It makes one
// if there is none; that takes a minute or two.
func cachedRoot(names []string, arguments ...string) (string, error) {
	return cachedRootOf(debianroot.Suite, names, arguments...)
}

func cachedRootOf(suite string, names []string, arguments ...string) (string, error) {
	cache := os.Getenv(cacheVariable)
	if cache == "" {
		cache = cacheDirectory
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	key := sha256.Sum256([]byte(rootVersion + "\n" + suite + "\n" + strings.Join(names, "\n")))
	root := filepath.Join(cache, "debian-"+hex.EncodeToString(key[:8]))
	// Another test may be making it at this moment.
	lock, err := lockFile(root+".lock", true)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	fmt.Fprintf(os.Stderr, "stage: making a Debian root in %s; this takes a minute or two, once\n", root)
	begun := time.Now()
	unfinished := root + ".new"
	if err := os.RemoveAll(unfinished); err != nil {
		return "", err
	}
	if err := debianroot.Make(context.Background(),
		debianroot.Config{Suite: suite, Directory: unfinished, Packages: names, Arguments: arguments}); err != nil {
		return "", err
	}
	if err := os.Rename(unfinished, root); err != nil {
		return "", err
	}
	fmt.Fprintf(os.Stderr, "stage: made the Debian root in %v\n", time.Since(begun).Round(time.Second))
	return root, nil
}

// installProduct makes the layer with our files in it, as the package's
// installation and `bitbox-base setup` would: the files, the users, the keys, and
// what starts at boot. test/boot does it with the package itself.
func installProduct(debian string) (string, error) {
	r, err := newRun(fmt.Sprintf("%d-product", os.Getpid()))
	if err != nil {
		return "", err
	}
	product = r
	if err := r.mountRoot([]string{debian}); err != nil {
		return "", err
	}
	if err := copyTree(filepath.Join(repository, "packaging", "root"), r.root()); err != nil {
		return "", err
	}
	if err := buildBinary(filepath.Join(r.root(), binary), "./test/stage/standin"); err != nil {
		return "", err
	}
	for _, argv := range [][]string{
		{"systemd-sysusers", "--root=" + r.root()},
		{"systemd-tmpfiles", "--root=" + r.root(), "--create", "bitbox-base.conf"},
		// No password matches "*"; "!" would lock the account for keys as well.
		{"usermod", "--root", r.root(), "--password", "*", sshaccess.User},
		// There are no updates here, and nobody at a screen.
		{"systemctl", "--root=" + r.root(), "mask", "--quiet", "apt-daily.timer", "apt-daily-upgrade.timer", "console-getty.service"},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %w: %s", argv[0], err, out)
		}
	}
	plan, err := setup.Plan(r.root(), setup.Options{}, nil)
	if err != nil {
		return "", err
	}
	if err := plan.Apply(r.root()); err != nil {
		return "", err
	}
	// mmdebstrap copies the host's.
	if err := os.WriteFile(filepath.Join(r.root(), "etc", "hostname"), []byte("bitbox-base\n"), 0o644); err != nil {
		return "", err
	}
	if err := sshaccess.EnsureHostKey(rand.Reader, filepath.Join(r.root(), generation.HostKey)); err != nil {
		return "", err
	}
	// The mount is no longer needed; its layer is.
	if err := unmountBelow(r.root()); err != nil {
		return "", err
	}
	return filepath.Join(r.directory(), "upper"), nil
}

// binary is where the Base's binary is installed.
const binary = "usr/bin/bitbox-base"

// realLayer makes the layer that has the Base's own binary in it, once for a
// process.
var realLayer = sync.OnceValues(func() (string, error) {
	layer := filepath.Join(product.directory(), "real")
	return layer, buildBinary(filepath.Join(layer, binary), "./cmd/bitbox-base")
})

// buildBinary builds a command of this repository, without cgo as for the package.
func buildBinary(path, command string) error {
	build := exec.Command("go", "build", "-o", path, command)
	build.Dir = repository
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w: %s", command, err, out)
	}
	return nil
}

// copyTree copies files, directories and links, all as root's.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		switch {
		case entry.IsDir():
			return os.MkdirAll(target, 0o755)
		case entry.Type()&fs.ModeSymlink != 0:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return os.Symlink(link, target)
		default:
			return copyFile(path, target)
		}
	})
}

func copyFile(from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

func tail(text string, n int) string { return text[max(0, len(text)-n):] }
