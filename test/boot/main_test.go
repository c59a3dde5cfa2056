//go:build linux

// Package boot_test boots what is shipped: the Debian package, and the systems that are built
// from it. It needs root; see test/stage.
package boot_test

import (
	"os"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

func TestMain(m *testing.M) {
	code := stage.Main(m)
	if packages.directory != "" {
		_ = os.RemoveAll(packages.directory)
	}
	os.Exit(code)
}
