package devbase_test

import (
	"os"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/netnstest"
)

func TestMain(m *testing.M) {
	if os.Getenv(crashState) != "" {
		os.Exit(crashingBase())
	}
	netnstest.Main(leaktest.Checked(m))
}
