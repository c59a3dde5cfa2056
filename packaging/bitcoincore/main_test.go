package main

import (
	"strings"
	"testing"
)

func TestTheArchiveForTheArchitectureIsTaken(t *testing.T) {
	const amd64, arm64 = "/a/bitcoin-31.0-x86_64-linux-gnu.tar.gz", "/b/bitcoin-31.0-aarch64-linux-gnu.tar.gz"
	for architecture, want := range map[string]string{"amd64": amd64, "arm64": arm64} {
		if got, err := choose(architecture, []string{amd64, arm64}); err != nil || got != want {
			t.Errorf("%s: %s, %v", architecture, got, err)
		}
	}
	for want, paths := range map[string][]string{
		"no archive of Bitcoin Core for arm64":       {amd64},
		"are both for arm64":                         {arm64, arm64},
		"is not the name of a release":               {arm64, "/c/bitcoin.zip"},
		"29 to 31, and this is 28.0":                 {"/d/bitcoin-28.0-aarch64-linux-gnu.tar.gz"},
		"the release is for riscv64-linux-gnu, and ": {"/e/bitcoin-31.0-riscv64-linux-gnu.tar.gz"},
	} {
		if got, err := choose("arm64", paths); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %s, %v", paths, got, err)
		}
	}
}
