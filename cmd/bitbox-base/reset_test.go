package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// The server for wallets learns whose addresses are asked for. One that was taken over may have
// noted them in the one folder that it can write to.
func TestAResetErasesTheFolderOfTheServerForWallets(t *testing.T) {
	unit, err := os.ReadFile("../../packaging/root/usr/lib/systemd/system/bitbox-base-electrum.service")
	if err != nil {
		t.Fatal(err)
	}
	_, name, _ := strings.Cut(string(unit), "\nStateDirectory=")
	name, _, _ = strings.Cut(name, "\n")
	if folder := "/var/lib/" + name; !slices.Contains(resetPlan.Folders, folder) {
		t.Errorf("%s stays: %q", folder, resetPlan.Folders)
	}
}
