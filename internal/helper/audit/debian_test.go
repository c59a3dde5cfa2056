package audit

import (
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/osrelease"
)

// osRelease is /etc/os-release of Debian 13.
const osRelease = `PRETTY_NAME="Debian GNU/Linux 13 (trixie)"
NAME="Debian GNU/Linux"
VERSION_ID="13"
VERSION="13 (trixie)"
VERSION_CODENAME=trixie
ID=debian
`

func TestTheEndOfDebiansSupportIsFound(t *testing.T) {
	const day = 24 * time.Hour
	// at sets the clock; the list of updates is as new as before.
	at := func(now time.Time) func(*testing.T, *fake) {
		return func(_ *testing.T, f *fake) { f.now = now; f.list(now.Add(-day)) }
	}
	system := func(old, changed string) func(*testing.T, *fake) {
		return func(_ *testing.T, f *fake) {
			f.files["/etc/os-release"] = strings.ReplaceAll(osRelease, old, changed)
		}
	}
	find(t, map[string]attack{
		"long before":              {at(osrelease.SecurityEnds.Add(-91 * day)), []string{}},
		"90 days before":           {at(osrelease.SecurityEnds.Add(-90 * day)), []string{idDebianSupport}},
		"the security team's end":  {at(osrelease.SecurityEnds), []string{idDebianSupport}},
		"the end of LTS":           {at(osrelease.LongTermEnds), []string{idDebianSupport}},
		"Debian 12":                {system("13", "12"), []string{idDebianSupport}},
		"Debian 14 below the Base": {system("13", "14"), []string{idDebianSupport}},
		"nothing known":            {func(_ *testing.T, f *fake) { delete(f.files, "/etc/os-release") }, []string{"unchecked-debian"}},
	})
}
