//go:build linux

// Package window_test uses the App's window as its owner does: Debian's Chromium, the App's program,
// and a Base with the real system helper and Middleware, in a network of their own.
//
// As root, which CI is, App and browser run as an ordinary user. Without root they run as the user
// who runs the tests, and what needs a second user or a network is skipped.
package window_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/netnstest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/windowtest"
)

func TestMain(m *testing.M) {
	tests := cleared{leaktest.Checked(m)}
	if os.Geteuid() == 0 {
		netnstest.Main(tests)
	}
	os.Exit(tests.Run())
}

// cleared are tests whose builds are removed at the end.
type cleared struct{ leaktest.Tests }

func (c cleared) Run() int {
	code := c.Tests.Run()
	if err := windowtest.Clear(); err != nil {
		fmt.Fprintln(os.Stderr, "remove what was built:", err)
		return 1
	}
	return code
}

// needRoot skips a test that needs a second user, or a network of its own. In CI it fails.
func needRoot(t *testing.T) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("CI") != "":
		t.Fatal("this test must run as root")
	default:
		t.Skip("SKIPPED, not passed: this needs root")
	}
}
