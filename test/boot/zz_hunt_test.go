//go:build linux

package boot_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

func rounds(name string, n int) int {
	if v, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return v
	}
	return n
}

func TestHuntBoot(t *testing.T) {
	for i := range rounds("HUNT", 5) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			s := stage.Install(t, stage.Config{Package: deb(t, oldVersion)})
			a := s.Attacker(1)
			for n := range rounds("HUNTBOOTS", 4) {
				s.Start()
				begun := time.Now()
				for {
					conn, err := a.Dial("tcp", entry(s))
					if err == nil {
						conn.Close()
						break
					}
					if time.Since(begun) > 20*time.Second {
						out, _ := s.Exec("systemctl", "status", "--no-pager", "bitbox-base-nginx.service")
						jobs, _ := s.Exec("systemctl", "list-jobs")
						t.Fatalf("boot %d: %v\n%s\n%s", n, err, out, jobs)
					}
					time.Sleep(20 * time.Millisecond)
				}
				if d := time.Since(begun); d > time.Second {
					t.Logf("boot %d: entry took %v", n, d)
				}
				s.Until("settled", func() error { return nil })
				for range 3 {
					time.Sleep(400 * time.Millisecond)
					if conn, err := a.Dial("tcp", entry(s)); err != nil {
						t.Logf("boot %d: after it was open: %v", n, err)
					} else {
						conn.Close()
					}
				}
				out, _ := s.Exec("systemctl", "show", "-P", "NRestarts", "bitbox-base-nginx.service", "bitbox-base-fail2ban.service", "bitbox-base-avahi.service", "bitbox-base-system.service", "bitbox-base-middleware.service")
				if out != "0\n\n0\n\n0\n\n0\n\n0\n" {
					t.Logf("boot %d restarts: %q", n, out)
				}
				for line := range strings.Lines(s.Journal()) {
					if strings.Contains(line, "ailed") || strings.Contains(line, "Dependency") || strings.Contains(line, "again") || strings.Contains(line, "scheduled restart") {
						t.Logf("boot %d: %s", n, line)
					}
				}
				s.Stop()
			}
		})
	}
}

func TestHuntRestart(t *testing.T) {
	s := stage.Boot(t, stage.Config{Package: deb(t, oldVersion)})
	a := s.Attacker(1)
	for n := range rounds("HUNT", 20) {
		out, err := s.Exec("sh", "-c", os.Getenv("HUNTDO"))
		if err != nil {
			t.Logf("%d: %v %s", n, err, out)
		}
		begun := time.Now()
		for {
			conn, err := a.Dial("tcp", entry(s))
			if err == nil {
				conn.Close()
				break
			}
			if time.Since(begun) > 20*time.Second {
				out, _ := s.Exec("systemctl", "status", "--no-pager", "bitbox-base-nginx.service")
				t.Fatalf("%d: %v\n%s", n, err, out)
			}
			time.Sleep(20 * time.Millisecond)
		}
		if d := time.Since(begun); d > 500*time.Millisecond {
			t.Logf("round %d: entry took %v", n, d)
		}
	}
}
