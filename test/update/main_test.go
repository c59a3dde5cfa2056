//go:build linux

// Package update_test has an owner's App bring real packages to a real Base, cuts the power
// during the update, and brings versions that do not work. It needs root; see test/stage.
package update_test

import (
	"os"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

func TestMain(m *testing.M) {
	code := stage.Main(m)
	if directory != "" {
		_ = os.RemoveAll(directory)
	}
	os.Exit(code)
}
