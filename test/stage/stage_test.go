//go:build linux

package stage_test

import (
	"os"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

func TestMain(m *testing.M) { os.Exit(stage.Main(m)) }

func TestBoots(t *testing.T) {
	begun := time.Now()
	s := stage.Boot(t, stage.Config{})
	t.Logf("booted in %v", time.Since(begun))
	t.Log(s.MustExec("systemctl", "list-units", "--failed", "--no-pager"))
	t.Log(s.MustExec("systemctl", "list-units", "bitbox*", "--all", "--no-pager"))
	t.Log(s.MustExec("ss", "-tulpn"))
	t.Log(s.Journal())
}
