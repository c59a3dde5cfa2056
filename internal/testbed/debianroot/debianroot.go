// Package debianroot makes Debian root file systems with mmdebstrap, for the image and for the
// tests.
package debianroot

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Suite is the Debian that a Base is made of.
const Suite = "bookworm"

// Config says which root to make.
type Config struct {
	// Directory is where it comes to lie. It must not be there yet.
	Directory string
	// Packages are those beside what Debian always has.
	Packages []string
	// Architecture is another one than this machine's; "" is this machine's.
	Architecture string
	// Arguments are more of mmdebstrap's.
	Arguments []string
}

// Make makes a root. It takes a minute or two, on a busy machine ten, and needs
// root.
func Make(ctx context.Context, c Config) error {
	argv := []string{"--variant=minbase", "--mode=root", "--quiet", "--include=" + strings.Join(c.Packages, ",")}
	if c.Architecture != "" {
		argv = append(argv, "--architectures="+c.Architecture)
	}
	settings, err := aptSettings(ctx)
	if err != nil {
		return err
	}
	for _, setting := range settings {
		argv = append(argv, "--aptopt="+setting)
	}
	argv = append(append(argv, c.Arguments...), Suite, c.Directory)
	if sources := debianSources(); sources != "" {
		argv = append(argv, sources)
	}
	command := exec.CommandContext(ctx, "mmdebstrap", argv...)
	// Asked to end it unmounts what it has mounted; killed it would not.
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = time.Minute
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("make a Debian root in %s: mmdebstrap: %w: %s", c.Directory, err, tail(string(out), 2000))
	}
	return nil
}

// ReadPackages reads a list of packages, one a line, with comments.
func ReadPackages(list string) []string {
	var names []string
	for line := range strings.Lines(list) {
		name, _, _ := strings.Cut(line, "#")
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// debianSources returns the host's own list of Debian's package sources, if it
// has one; else mmdebstrap knows where Debian is.
func debianSources() string {
	for _, path := range []string{"/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"} {
		content, err := os.ReadFile(path)
		if err == nil && (strings.Contains(string(content), "\ndeb ") || strings.HasPrefix(string(content), "deb ") ||
			strings.Contains(string(content), "Types:")) {
			return path
		}
	}
	return ""
}

// aptSettings returns how the host's apt reaches its sources.
func aptSettings(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, "apt-config", "dump", "--no-empty", "Acquire").Output()
	if err != nil {
		return nil, fmt.Errorf("ask apt how it reaches its sources: apt-config dump: %w", err)
	}
	var settings []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSuffix(strings.TrimSpace(line), ";")
		for _, prefix := range []string{"Acquire::Check-", "Acquire::http::", "Acquire::https::"} {
			if strings.HasPrefix(line, prefix) {
				settings = append(settings, line)
			}
		}
	}
	return settings, nil
}

func tail(text string, n int) string { return text[max(0, len(text)-n):] }
