package nodesettings

import (
	"path/filepath"
	"testing"
)

func TestTheDiskIsKnownBeforeTheNodeHasAFolder(t *testing.T) {
	folder := t.TempDir()
	want, err := space(folder)
	if err != nil || want == 0 {
		t.Fatal(want, err)
	}
	if got, err := space(filepath.Join(folder, "of the node")); err != nil || got != want {
		t.Errorf("it has %d bytes, %v, not %d", got, err, want)
	}
	if got, err := space(filepath.Join(folder, "gone", "of the node")); err == nil {
		t.Errorf("a disk that is not there has %d bytes", got)
	}
}
