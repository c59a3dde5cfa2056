package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/osrelease"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// supportNotice is how long before the end of Debian's support an owner hears of it: time
// enough to choose a day for a newer release.
const supportNotice = 90 * 24 * time.Hour

// checkDebian asks whether Debian still fixes what the Base is made of.
func checkDebian(_ context.Context, system System, _ Expectation) ([]difference, error) {
	release, err := system.ReadFile("/etc/os-release")
	if err != nil {
		return nil, err
	}
	found := func(line string) ([]difference, error) {
		return []difference{{id: idDebianSupport, found: []string{line}}}, nil
	}
	if err := osrelease.Parse(string(release)).Suits(); err != nil {
		return found(reason.Of(err))
	}
	day := func(t time.Time) string { return t.Format(time.DateOnly) }
	switch now := system.Now(); {
	case !now.Before(osrelease.LongTermEnds):
		return found(fmt.Sprintf("nobody has fixed Debian %s since %s", osrelease.Release, day(osrelease.LongTermEnds)))
	case !now.Before(osrelease.SecurityEnds):
		return found(fmt.Sprintf("Debian's security team has not fixed Debian %s since %s; volunteers fix most of it until %s",
			osrelease.Release, day(osrelease.SecurityEnds), day(osrelease.LongTermEnds)))
	case !now.Before(osrelease.SecurityEnds.Add(-supportNotice)):
		return found(fmt.Sprintf("Debian's security team fixes Debian %s until %s", osrelease.Release, day(osrelease.SecurityEnds)))
	}
	return nil, nil
}
