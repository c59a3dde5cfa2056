package system

import (
	"os"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
)

// The test binary is also a process that is killed (kill_test.go), and one that
// speaks to a helper's socket as another user (socket_test.go).
const roleVariable = "BITBOX_BASE_SYSTEM_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "victim":
		victim()
	case "records":
		records()
	case "relay":
		relay()
	default:
		os.Exit(leaktest.Run(m))
	}
}
