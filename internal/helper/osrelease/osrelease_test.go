package osrelease_test

import (
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/osrelease"
)

func TestASystemThatDoesNotSuitIsToldTheWay(t *testing.T) {
	for _, test := range []struct{ osRelease, says string }{
		{"PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nVERSION_ID=\"13\"\nID=debian\n", ""},
		{"PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n",
			`a Base is made of Debian 13, and this is "Debian GNU/Linux 12 (bookworm)"; upgrade Debian first, as its release notes say`},
		{"ID=debian\nVERSION_ID=14\n", `a Base is made of Debian 13, and this is "debian 14"; install Debian 13`},
		{"PRETTY_NAME=\"Debian GNU/Linux forky/sid\"\nID=debian\n",
			`a Base is made of Debian 13, and this is "Debian GNU/Linux forky/sid"; install Debian 13`},
		{"ID=ubuntu\nVERSION_ID=\"12\"\n", `a Base is made of Debian 13, and this is "ubuntu 12"; install Debian 13`},
		{"ID=debian\nVERSION_ID=\"13 14\"\n", `a Base is made of Debian 13, and this is "debian 13 14"; install Debian 13`},
		{"", `a Base is made of Debian 13, and this is ""; install Debian 13`},
	} {
		err := osrelease.Parse(test.osRelease).Suits()
		if test.says == "" && err != nil || test.says != "" && (err == nil || err.Error() != test.says) {
			t.Errorf("for %s it says %v, not %q", strings.ReplaceAll(test.osRelease, "\n", " "), err, test.says)
		}
	}
}
