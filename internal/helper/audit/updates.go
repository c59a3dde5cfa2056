package audit

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// The findings about Debian's security updates, for who shows them apart.
const (
	Updates          = idUpdates
	UpdatesUnknown   = idUpdatesUnknown
	UpdatesUnchecked = unchecked + "updates"
)

const aptLists = "/var/lib/apt/lists"

// maxListAge is how old Debian's lists may be until what they say counts for
// nothing; a Base asks for new ones every day.
const maxListAge = 7 * 24 * time.Hour

// simulate asks apt what an upgrade would install. It changes nothing, needs no
// lock, asks nobody, and keeps no cache.
var simulate = []string{
	aptGet, "-s", "-qq", "-o", "Debug::NoLocking=1", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "--with-new-pkgs", "upgrade",
}

func checkUpdates(ctx context.Context, system System, _ Expectation) ([]difference, error) {
	unknown := func(reason string) ([]difference, error) {
		return []difference{{id: idUpdatesUnknown, found: []string{reason}}}, nil
	}
	names, err := system.ReadDir(aptLists)
	if err != nil {
		return nil, err
	}
	list := securityList(names)
	if list == "" {
		return unknown("there is no list of Debian's security updates in " + aptLists)
	}
	file, err := system.Lstat(aptLists + "/" + list)
	if err != nil {
		return nil, err
	}
	if age := system.Now().Sub(file.Modified); age > maxListAge {
		return unknown(fmt.Sprintf("the list of Debian's security updates is %d days old", age/(24*time.Hour)))
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
