package audit

import (
	"testing"
	"time"
)

// Recorded from apt 2.6.1.
const pending = `Inst base-files [12.4+deb12u11] (12.4+deb12u15 Debian:12.15/oldstable [amd64])
Inst libgcrypt20 [1.10.1-3] (1.10.1-3+deb12u1 Debian:12.15/oldstable, Debian-Security:12/oldstable-security [amd64])
Inst liblzma5 [5.4.1-1] (5.4.1-1+deb12u2 Debian-Security:12/oldstable-security [amd64]) []
Conf liblzma5 (5.4.1-1+deb12u2 Debian-Security:12/oldstable-security [amd64])
`

func TestSecurityUpdatesThatWaitAreFound(t *testing.T) {
	list := aptLists + "/deb.debian.org_debian-security_dists_trixie-security_InRelease"
	find(t, map[string]attack{
		"two":           {func(_ *testing.T, f *fake) { f.print(pending, simulate...) }, []string{idUpdates}},
		"ordinary ones": {func(_ *testing.T, f *fake) { f.print(pending[:90], simulate...) }, []string{}},
		"no lists":      {func(_ *testing.T, f *fake) { delete(f.stat, list) }, []string{idUpdatesUnknown}},
		"old lists":     {func(_ *testing.T, f *fake) { f.list(f.now.Add(-11 * 24 * time.Hour)) }, []string{idUpdatesUnknown}},
		"a late clock":  {func(_ *testing.T, f *fake) { f.list(f.now.Add(30 * 24 * time.Hour)) }, []string{idUpdatesUnknown}},
		"no date":       {func(_ *testing.T, f *fake) { f.files[list] = "Origin: Debian\n" }, []string{"unchecked-updates"}},
	})
	if got := securityUpdates(pending); len(got) != 2 || got[0] != "libgcrypt20 1.10.1-3+deb12u1" &&
		got[0] != "libgcrypt20 [1.10.1-3] 1.10.1-3+deb12u1" {
		t.Errorf("found %q", got)
	}
}
