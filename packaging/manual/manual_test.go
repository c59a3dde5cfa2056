package manual

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

func write(t *testing.T, folder string) {
	t.Helper()
	command := exec.Command("../../scripts/manual", folder, "1.2~3")
	command.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=86400")
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestThePagesHaveNoWarning(t *testing.T) {
	mandoc, err := exec.LookPath("mandoc")
	if err != nil && os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("mandoc is not installed (scripts/setup-tests)")
	}
	folder := t.TempDir()
	write(t, folder)
	pages, _ := filepath.Glob(filepath.Join(folder, "man", "*.1"))
	for _, page := range []string{"bitbox-app.1", "bitbox-app-exit-codes.1", "bitbox-app-posture-show.1", "bitbox-base.1",
		"bitbox-base-setup.1"} {
		if _, err := os.Stat(filepath.Join(folder, "man", page)); err != nil {
			t.Error(err)
		}
	}
	out, err := exec.Command(mandoc, append([]string{"-Tlint", "-W", "warning"}, pages...)...).CombinedOutput()
	if len(out) > 0 || err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	// The builder's home is not in it.
	text, err := os.ReadFile(filepath.Join(folder, "man", "bitbox-base.1"))
	if err != nil || !bytes.Contains(text, []byte(`by default \(ti/.local/state/bitbox\-base)`)) {
		t.Errorf("%v\n%s", err, text)
	}
	for _, file := range []string{"bitbox-app", "bitbox-base"} {
		if out, err := exec.Command("bash", "-n", filepath.Join(folder, "completions/bash", file)).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", file, err, out)
		}
	}
	for _, file := range []string{"zsh/_bitbox-app", "zsh/_bitbox-base", "fish/bitbox-app.fish", "fish/bitbox-base.fish"} {
		if text, err := os.ReadFile(filepath.Join(folder, "completions", file)); err != nil || len(text) == 0 {
			t.Errorf("%s: %v", file, err)
		}
	}

	// The same bytes each time, wherever.
	again := t.TempDir()
	write(t, again)
	if out, err := exec.Command("diff", "-r", folder, again).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// A page shows text as it is, even if it looks like a command of troff.
func TestNoTextIsARequest(t *testing.T) {
	root := &cobra.Command{Use: "x", Short: `a\fBb`, Long: ".so /etc/passwd\n'de x\n\n  .literal \\n", Run: func(*cobra.Command, []string) {}}
	root.Flags().String("f", "", ".so file")
	folder := t.TempDir()
	if err := Write(root, folder, "1", time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(folder, "man", "x.1"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		for _, request := range []string{".so", "'de", ".de"} {
			if strings.HasPrefix(line, request) {
				t.Errorf("%q", line)
			}
		}
	}
	if !strings.Contains(string(text), "1970-01-01") || !strings.Contains(string(text), `a\efBb`) ||
		!strings.Contains(string(text), "  .literal \\en\n") {
		t.Errorf("%s", text)
	}
}

func TestMissingDescriptionsAreFound(t *testing.T) {
	root := &cobra.Command{Use: "x", Short: "X", Long: "X.", Run: func(*cobra.Command, []string) {}}
	sub := &cobra.Command{Use: "y", Example: "  x z", Run: func(*cobra.Command, []string) {}}
	sub.Flags().Bool("f", false, "")
	root.AddCommand(sub)
	if gaps := Gaps(root); len(gaps) != 3 {
		t.Errorf("%q", gaps)
	}
}
