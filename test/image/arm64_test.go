//go:build linux && image

package image_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// The package for arm64, in software, as far as that goes without a kernel of that kind: its
// program starts, finds that it was never started, and writes the first configuration, the
// same as here. A whole arm64 machine is not tested (docs/image.md).
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
