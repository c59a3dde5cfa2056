//go:build linux

package boot_test

import (
	"testing"
)

func TestAnalyzeBoot(t *testing.T) {
	b, _ := firstBoot(t, 0)
	b.bootedIn("first boot")
	for range 5 {
		b.Stop()
		b.bootedIn("boot")
	}
	out, _ := b.Exec("systemd-analyze", "blame")
	t.Log(out)
}
