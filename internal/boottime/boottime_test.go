package boottime

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTheBootIdComesFromRunOrElseFromTheKernel(t *testing.T) {
	directory := t.TempDir()
	own, kernel := filepath.Join(directory, "own"), filepath.Join(directory, "kernel")
	if _, err := readID(own, kernel); err == nil {
		t.Error("without any there is an id")
	}
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(kernel, "928327b3-2fed-4d00-b43a-52bff13ede9b\n")
	if id, err := readID(own, kernel); err != nil || id != "928327b32fed4d00b43a52bff13ede9b" {
		t.Errorf("%q, %v", id, err)
	}
	write(own, "e52d70525f044a7392cf0000b8adb3c7\n")
	if id, err := readID(own, kernel); err != nil || id != "e52d70525f044a7392cf0000b8adb3c7" {
		t.Errorf("%q, %v", id, err)
	}
	write(own, "")
	if _, err := readID(own, kernel); err == nil {
		t.Error("an empty file is taken for an id")
	}
}
