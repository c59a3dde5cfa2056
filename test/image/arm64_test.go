//go:build linux && image

package image_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/image/build"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// An image for arm64 is built on this machine, enrols its keys, makes its data, is claimed by its owner's App, and takes an update.
func TestAnArm64MachineStartsIsClaimedAndIsUpdated(t *testing.T) {
	m := newMachineOf(t, arm64, filepath.Join(arm64Image(t, "1.0.0"), build.DiskFile), arm64.variables)
	app, way := m.claimFor()
	begun := time.Now()
	m.switchOn()
	starts := m.comesBack(app, way)
	t.Logf("FIGURE arm64: from power on to the first answer, in software: %.0f s and %d starts", time.Since(begun).Seconds(), starts+1)
	m.runs(app, way, "1.0.0")
	m.cutPower()
	begun = time.Now()
	m.switchOn()
	m.worksAt(app, way, "after a power cut")
	t.Logf("FIGURE arm64: from power on to the first answer after a power cut, in software: %.0f s", time.Since(begun).Seconds())

	r := released(t, arm64Image(t, "2.0.0"))
	begun = time.Now()
	if err := m.through(app, way, func(ctx context.Context, s *client.Session) error { return s.Install(ctx, r, nil) }); err != nil {
		t.Fatal(client.Explain(err))
	}
	t.Logf("FIGURE arm64: an update of the image, in software: %.0f s", time.Since(begun).Seconds())
	m.runs(app, way, "2.0.0")
}

// arm64Image builds an image as a person does. Programs of arm64 run in an emulator: where systemd has not told the kernel so,
// this does, for as long as it builds.
func arm64Image(t *testing.T, number string) string {
	t.Helper()
	stage.NeedRoot(t, "qemu-aarch64-static", "unshare")
	script := `
if [ ! -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]; then
	mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
	if [ ! -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]; then
		trap 'echo -1 >/proc/sys/fs/binfmt_misc/qemu-aarch64' EXIT
		cat /usr/lib/binfmt.d/qemu-aarch64.conf >/proc/sys/fs/binfmt_misc/register
	fi
fi
package=$(./scripts/package "$3" arm64 "$1") && go run ./image build --arch=arm64 --package="$package" --out="$1/image" --keys="$2"
`
	directory := t.TempDir()
	command := exec.Command("unshare", "--mount", "sh", "-euc", script, "sh", directory, keys(t), number)
	command.Dir = "../.."
	command.Env = append(os.Environ(), "RELEASE_KEY="+releasePublicKey(t))
	begun := time.Now()
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("build an image for arm64: %v\n%s", err, out)
	}
	t.Logf("FIGURE build of the image for arm64: %.0f s\n%s", time.Since(begun).Seconds(), out)
	return filepath.Join(directory, "image")
}

// The package for arm64, in software, as far as that goes without a kernel of that kind: its
// program starts, finds that it was never started, and writes the first configuration, the
// same as here.
func TestTheProgramForArm64WritesTheSameConfiguration(t *testing.T) {
	const emulator = "qemu-aarch64-static"
	stage.NeedRoot(t, emulator, "dpkg-deb", "unshare")
	root := filepath.Join(t.TempDir(), "root")
	host := func(argv ...string) string {
		t.Helper()
		command := exec.Command(argv[0], argv[1:]...)
		command.Stderr = os.Stderr
		out, err := command.Output()
		if err != nil {
			t.Fatalf("%q: %v\n%s", argv, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	host("dpkg-deb", "--extract", host("../../scripts/package", "1.0.0", "arm64", t.TempDir()), root)
	path, err := exec.LookPath(emulator)
	if err != nil {
		t.Fatal(err)
	}
	host("cp", path, filepath.Join(root, "emulator"))
	for _, directory := range []string{generation.StateDirectory, generation.RuntimeDirectory} {
		if err := os.MkdirAll(filepath.Join(root, directory), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, generation.RuntimeDirectory, "boot-id"), []byte("7d3e1f8a5b4c4d2e9f6071829304a5b6\n"),
		0o644); err != nil {
		t.Fatal(err)
	}
	inside := func(arguments ...string) string {
		t.Helper()
		return host(append([]string{"unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--root=" + root, "--", "/emulator",
			"/usr/bin/bitbox-base"}, arguments...)...)
	}
	if version := inside("version"); !strings.Contains(version, "1.0.0") {
		t.Errorf("it is version %q", version)
	}
	inside("system", "prepare")
	files, err := generation.Render(stage.Factory())
	if err != nil {
		t.Fatal(err)
	}
	drift, err := generation.NewStore(filepath.Join(root, generation.StateDirectory)).Verify(files)
	if err != nil || len(drift) > 0 {
		t.Errorf("the configuration differs: %q, %v", drift, err)
	}
}
