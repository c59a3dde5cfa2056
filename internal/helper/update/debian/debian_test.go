//go:build linux

package debian

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/setup"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

func needDpkg(t *testing.T) {
	t.Helper()
	for _, program := range []string{dpkg, dpkgDeb} {
		if _, err := os.Stat(program); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip("SKIPPED, not passed: this test needs Debian's dpkg")
		}
	}
}

func TestDpkgNamesTheArchitecture(t *testing.T) {
	needDpkg(t)
	architecture, err := Machine{}.Architecture(t.Context())
	if err != nil || architecture == "" || strings.ContainsAny(architecture, "\n ") {
		t.Errorf("the architecture is %q, %v", architecture, err)
	}
}

// A dpkg that cannot be asked must not be taken for a no, nor for a yes.
func TestADpkgThatFailsIsAnError(t *testing.T) {
	broken := errors.New("no such program")
	m := Machine{Run: func(context.Context, ...string) (string, error) { return "", broken }}
	if _, err := m.Installed(t.Context()); err == nil {
		t.Error("some version is installed")
	}
	none := Machine{Run: func(context.Context, ...string) (string, error) { return "", nil }}
	if _, err := none.Installed(t.Context()); err == nil {
		t.Error("no version is one")
	}
}

// The journal has what dpkg was told and what it said; the owner has the reason.
func TestTheReasonThatDpkgFailsHasNoTextOfTheSystem(t *testing.T) {
	needDpkg(t)
	_, err := Machine{}.run(t.Context(), askTime, dpkg, "--no-such-option")
	if err == nil || !strings.Contains(err.Error(), "--no-such-option") || !strings.Contains(err.Error(), "exit status 2") {
		t.Fatalf("for the journal: %v", err)
	}
	if got := reason.Of(reason.Errorf("install it: %w", err)); got != "install it: dpkg: the program ended with status 2" {
		t.Errorf("for the owner: %q", got)
	}
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	if _, err = (Machine{}).run(late, askTime, dpkg, "--version"); err == nil || !strings.Contains(reason.Of(err), "it took too long") {
		t.Errorf("too late: %v", err)
	}
}

func TestAPackageSaysWhatItIs(t *testing.T) {
	needDpkg(t)
	root, deb := t.TempDir(), filepath.Join(t.TempDir(), "package.deb")
	control := "Package: bitbox-base\nVersion: 1.2-3\nArchitecture: arm64\nMaintainer: nobody <nobody@example.org>\nDescription: a test\n Version: 9 is not its version\n"
	if err := errors.Join(os.Mkdir(filepath.Join(root, "DEBIAN"), 0o755),
		os.WriteFile(filepath.Join(root, "DEBIAN/control"), []byte(control), 0o644)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(dpkgDeb, "--root-owner-group", "--build", root, deb).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got, err := Machine{}.Describe(t.Context(), deb)
	if want := (update.Package{Name: "bitbox-base", Version: "1.2-3", Architecture: "arm64"}); err != nil || got != want {
		t.Errorf("it says %+v, %v", got, err)
	}
	if got, err := (Machine{}).Describe(t.Context(), filepath.Join(root, "DEBIAN/control")); err == nil {
		t.Errorf("a text says that it is %+v", got)
	}
}

func TestTheControlFileOfWhatIsInstalledLeavesOutItsState(t *testing.T) {
	status := "Package: bitbox-base\nStatus: install ok installed\nVersion: 1.0\nConffiles:\n /etc/a 0123\n /etc/b 4567\nDescription: short\n long\n .\n more\n"
	want := "Package: bitbox-base\nVersion: 1.0\nDescription: short\n long\n .\n more\n"
	if got := controlOf(status); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestThePackageIsOnlyInstalledByConstantArguments(t *testing.T) {
	var ran []string
	m := Machine{Run: func(_ context.Context, argv ...string) (string, error) {
		ran = append(ran, strings.Join(argv, " "))
		return "", nil
	}}
	if err := m.Install(t.Context(), "/x/next.deb"); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := "/usr/bin/dpkg --force-confdef --force-confold --install /x/next.deb|/usr/bin/systemctl start --no-block bitbox-base-upgrade.service"
	if got := strings.Join(ran, "|"); got != want {
		t.Errorf("ran %q", got)
	}
}

// A node that was taken over can take its ten minutes to stop. An update that waits for it runs out of
// time, and is undone: the hole would stay open. A start waits for a restart that is under way.
func TestNoUpdateWaitsForANodeThatDoesNotStop(t *testing.T) {
	linked := []string{generation.WatcherUnit, setup.SlowUnit, generation.ProxyUnit}
	named := 0
	for _, argv := range commands(linked) {
		if !slices.Contains(argv, setup.SlowUnit) {
			continue
		}
		named++
		if argv[0] != "--no-block" || len(argv) != 3 {
			t.Errorf("systemctl %q waits for the node", argv)
		}
	}
	if named != 2 {
		t.Errorf("%d commands name the node; one restarts it if it runs, one starts it", named)
	}
	if others := setup.Starts(linked)[0]; !slices.Equal(others, []string{"start", generation.WatcherUnit, generation.ProxyUnit}) {
		t.Errorf("the others: %q", others)
	}
}

func TestEachProgramThatAnUpdateReplacesIsRestarted(t *testing.T) {
	var all []string
	for _, argv := range restarts {
		all = append(all, argv...)
	}
	for _, unit := range append([]string{generation.BansUnit, generation.FirewallUnit}, setup.ProgramUnits...) {
		if !slices.Contains(all, unit) {
			t.Errorf("%s runs on with the program of the previous version", unit)
		}
	}
}
