package api

import (
	"testing"
)

func TestTheKernelAnswersWithPlausibleFigures(t *testing.T) {
	info, err := readSysinfo(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if info.uptimeSeconds == 0 || info.memoryTotal == 0 || info.diskTotal == 0 {
		t.Errorf("a running machine has been up for a while, and has memory and a disk: %+v", info)
	}
	if info.memoryAvailable > info.memoryTotal || info.diskAvailable > info.diskTotal {
		t.Errorf("more is available than there is: %+v", info)
	}
	if _, err := readSysinfo("/does/not/exist"); err == nil {
		t.Error("no error for a file system that does not exist")
	}
}

func TestMemAvailableIsReadInBytes(t *testing.T) {
	got, err := parseMemAvailable([]byte("MemTotal:       8000 kB\nMemAvailable:      12 kB\n"))
	if err != nil || got != 12<<10 {
		t.Errorf("got %d, %v; want %d", got, err, 12<<10)
	}
	for _, bad := range []string{"", "MemTotal: 1 kB\n", "MemAvailable: 12\n", "MemAvailable: -1 kB\n",
		"MemAvailable: 99999999999999999999 kB\n"} {
		if _, err := parseMemAvailable([]byte(bad)); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}
