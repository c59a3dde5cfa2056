package audit

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// The findings about Debian's security updates, for callers that show them separately.
const (
	Updates          = idUpdates
	UpdatesUnknown   = idUpdatesUnknown
	UpdatesUnchecked = unchecked + "updates"
)

const aptLists = "/var/lib/apt/lists"

// maxListAge is how old Debian's lists may be before they are ignored. Debian's own limit is the
// same (Valid-Until); a Base fetches new ones every day.
const maxListAge = 10 * 24 * time.Hour

// maxClockFault is how far in the future a list may be: the Base's clock may be a little slow.
const maxClockFault = time.Hour

// simulate asks apt what an upgrade would install. It changes nothing, takes no lock, asks no
// questions, and keeps no cache.
var simulate = []string{
	aptGet, "-s", "-qq", "-o", "Debug::NoLocking=1", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "--with-new-pkgs",
	"upgrade",
}

func checkUpdates(ctx context.Context, system System, _ Expectation) ([]difference, error) {
	unknown := func(reason string) ([]difference, error) {
		return []difference{{id: idUpdatesUnknown, found: []string{reason}}}, nil
	}
	// Fixes of Debian come to an image by releases only.
	if running, err := runningImage(system); err != nil || running != nil {
		return nil, err
	}
	names, err := system.ReadDir(aptLists)
	if err != nil {
		return nil, err
	}
	list := securityList(names)
	if list == "" {
		return unknown("there is no list of Debian's security updates in " + aptLists)
	}
	text, err := system.ReadFile(aptLists + "/" + list)
	if err != nil {
		return nil, err
	}
	made, err := releaseDate(string(text))
	if err != nil {
		return nil, reason.Errorf("read %s: %w", list, err)
	}
	switch age := system.Now().Sub(made); {
	case age > maxListAge:
		return unknown(fmt.Sprintf("the list of Debian's security updates is %d days old", age/(24*time.Hour)))
	case age < -maxClockFault:
		return unknown(fmt.Sprintf("the list of Debian's security updates is dated %s, which is in the future by this Base's clock",
			made.Format(time.DateOnly)))
	}
	output, err := ask(ctx, system, simulate...)
	if err != nil {
		return nil, err
	}
	if found := securityUpdates(output); found != nil {
		return []difference{{id: idUpdates, found: found}}, nil
	}
	return nil, nil
}

// securityList finds the signed list of Debian's security archive.
func securityList(names []string) string {
	for _, name := range names {
		if strings.Contains(name, "-security_") && strings.HasSuffix(name, "InRelease") {
			return name
		}
	}
	return ""
}

// releaseDate returns when Debian made a list, from the text that its archive has signed. The
// file's time comes from this machine's clock, which may have been wrong.
func releaseDate(text string) (time.Time, error) {
	for line := range strings.Lines(text) {
		if value, found := strings.CutPrefix(strings.TrimSpace(line), "Date: "); found {
			return time.Parse("Mon, 2 Jan 2006 15:04:05 MST", value)
		}
	}
	return time.Time{}, reason.New("it does not say when it was made")
}

// securityUpdates reads the output of simulate:
//
//	Inst dpkg [1.21.22] (1.21.23 Debian:12.15/oldstable, Debian-Security:12/oldstable-security [amd64])
func securityUpdates(output string) []string {
	var found []string
	for line := range strings.Lines(output) {
		fields := strings.Fields(line)
		if len(fields) > 2 && fields[0] == "Inst" && strings.Contains(line, "Debian-Security:") {
			version := ""
			if _, rest, ok := strings.Cut(line, "("); ok {
				version, _, _ = strings.Cut(rest, " ")
			}
			found = append(found, strings.TrimSpace(fields[1]+" "+version))
		}
	}
	return found
}
