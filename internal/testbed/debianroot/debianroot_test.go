package debianroot

import (
	"slices"
	"testing"
)

// The host may be an older Debian: its mirror is taken, its suite is not.
func TestTheSourcesOfTheHostAreWrittenForTheSuiteOfABase(t *testing.T) {
	const debian12 = "ID=debian\nVERSION_CODENAME=bookworm\n"
	for _, test := range []struct{ name, osRelease, list, want string }{
		{"deb822", debian12,
			"# http://mirror.example/bookworm\nTypes: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\n" +
				"Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\nComponents: main\n",
			"# http://mirror.example/bookworm\nTypes: deb\nURIs: http://mirror.example/debian\nSuites: trixie trixie-updates\nComponents: main\n\n" +
				"Types: deb\nURIs: http://mirror.example/debian-security\nSuites: trixie-security\nComponents: main\n"},
		{"one line each", debian12,
			"deb http://mirror.example/bookworm bookworm main\ndeb http://mirror.example/debian-security bookworm-security main\n",
			"deb http://mirror.example/bookworm trixie main\ndeb http://mirror.example/debian-security trixie-security main\n"},
		{"the same Debian", "VERSION_CODENAME=\"trixie\"\n", "deb http://mirror.example/debian trixie main\n",
			"deb http://mirror.example/debian trixie main\n"},
		{"another distribution's", "VERSION_CODENAME=noble\n", "deb http://mirror.example/debian bookworm main\n", ""},
		{"no Debian at all", "ID=arch\n", "deb http://mirror.example/debian bookworm main\n", ""},
		{"none", debian12, "", ""},
	} {
		if got := sourcesOfSuite(Suite, test.list, test.osRelease); got != test.want {
			t.Errorf("%s: the list is\n%s\nwant\n%s", test.name, got, test.want)
		}
	}
}

func TestOnlyTheNamesOfAListOfPackagesAreRead(t *testing.T) {
	got := ReadPackages("# a comment\n\nnginx (>= 1.26)  # the entry\ndbus # speaks\n  iproute2\n")
	if want := []string{"nginx", "dbus", "iproute2"}; !slices.Equal(got, want) {
		t.Errorf("it reads %q, not %q", got, want)
	}
}
