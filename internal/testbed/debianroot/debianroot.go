// Package debianroot makes Debian root file systems with mmdebstrap, for the image and for the
// tests.
package debianroot

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/osrelease"
)

// Suite is the Debian release of a Base.
const Suite = osrelease.Suite

// Unstable is the suite without releases. It has no updates and no security updates.
const Unstable = "sid"

// Config says which root to make.
type Config struct {
	// Directory is where the root is created. It must not exist yet.
	Directory string
	// Suite is the Debian release of the root; "" means [Suite].
	Suite string
	// Packages are added to those that Debian always has.
	Packages []string
	// Architecture is the root's; "" means this machine's.
	Architecture string
	// Arguments are passed to mmdebstrap in addition.
	Arguments []string
	// Environment is added to that of this process.
	Environment []string
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
	suite := c.Suite
	if suite == "" {
		suite = Suite
	}
	argv = append(append(argv, c.Arguments...), suite, c.Directory)
	sources, err := hostSources(suite)
	if err != nil {
		return err
	}
	if sources != "" {
		argv = append(argv, "-") // from standard input
	}
	command := exec.CommandContext(ctx, "mmdebstrap", argv...)
	command.Stdin = strings.NewReader(sources)
	command.Env = append(os.Environ(), c.Environment...)
	// Asked to end it unmounts what it has mounted; killed it would not.
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = time.Minute
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("make a Debian root in %s: mmdebstrap: %w: %s", c.Directory, err, tail(string(out), 2000))
	}
	return nil
}

// ReadPackages reads the names of a list of packages, one a line, with versions and comments.
func ReadPackages(list string) []string {
	var names []string
	for line := range strings.Lines(list) {
		line, _, _ = strings.Cut(line, "#")
		if fields := strings.Fields(line); len(fields) > 0 {
			names = append(names, fields[0])
		}
	}
	return names
}

// hostSources returns the host's own list of Debian's package sources with a suite in place
// of the host's. It is empty if the host has no such list; then mmdebstrap knows where
// Debian is.
func hostSources(suite string) (string, error) {
	if suite == Unstable {
		return "", nil // the host's list would name suites that do not exist
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", fmt.Errorf("ask which Debian this host is: %w", err)
	}
	for _, path := range []string{"/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"} {
		content, err := os.ReadFile(path)
		if err != nil {
			continue // a host has one of them
		}
		if sources := sourcesOfSuite(suite, string(content), string(release)); sources != "" {
			return sources, nil
		}
	}
	return "", nil
}

// sourcesOfSuite rewrites a list of sources (sources.list(5), of either format) for a suite,
// with its updates and security updates where the list has those of the host. It
// returns "" if the list does not name the host's suite.
func sourcesOfSuite(suite, list, osRelease string) string {
	host := osrelease.Value(osRelease, "VERSION_CODENAME")
	if host == "" {
		return ""
	}
	pattern := regexp.MustCompile(`([ \t])` + regexp.QuoteMeta(host) + `\b`)
	if !pattern.MatchString(list) {
		return ""
	}
	return pattern.ReplaceAllString(list, "${1}"+suite)
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
