package release

import (
	"os"
	"os/exec"
	"testing"
)

var versions = []string{
	"0", "0.1", "1", "1.0", "1.0-1", "1.0-2", "1.0-10", "1.0~rc1", "1.0~rc1-1", "1.0~~", "1.0+1", "1.0+dfsg-1", "1.1", "1.9", "1.10",
	"1.10a", "1.10aa", "1.10A", "1.a", "1a", "1:0.1", "2:0", "9.9", "0~20260101", "0~20260101-1", "1.02", "1.2", "1.2.3-4-5", "1.2.3.0", "01",
	"18446744073709551616", "18446744073709551617", "1~", "0:1",
}

// dpkg is what decides on a Debian; both have to say the same.
func TestVersionsAreOrderedAsDpkgDoes(t *testing.T) {
	if _, err := exec.LookPath("dpkg"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("SKIPPED, not passed: this test needs dpkg")
	}
	for i, a := range versions {
		for _, b := range versions[i:] {
			got, back := Compare(a, b), Compare(b, a)
			operator := map[int]string{-1: "lt-nl", 0: "eq", 1: "gt-nl"}[got]
			if operator == "" || back != -got {
				t.Fatalf("%s and %s: %d and %d", a, b, got, back)
			}
			if err := exec.Command("dpkg", "--compare-versions", a, operator, b).Run(); err != nil {
				t.Errorf("%s is %s %s, and dpkg says no: %v", a, operator, b, err)
			}
		}
	}
}
