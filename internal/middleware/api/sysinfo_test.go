package api

import (
	"testing"
	"testing/fstest"
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
	for _, bad := range []string{"", "MemTotal: 1 kB\n", "MemAvailable: 12\n", "MemAvailable: -1 kB\n", "MemAvailable: 99999999999999999999 kB\n"} {
		if _, err := parseMemAvailable([]byte(bad)); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func TestTheHottestSensorCounts(t *testing.T) {
	zones := fstest.MapFS{
		"thermal_zone0/temp": {Data: []byte("41500\n")},
		"thermal_zone1/temp": {Data: []byte("52000\n")},
		"thermal_zone2/temp": {Data: []byte("asleep\n")},
		"thermal_zone2/type": {Data: []byte("99000\n")},
	}
	if celsius, ok, err := hottest(zones); err != nil || !ok || celsius != 52 {
		t.Errorf("hottest = %v, %t, %v; want 52", celsius, ok, err)
	}
	if _, ok, err := hottest(fstest.MapFS{}); ok || err != nil {
		t.Errorf("no sensor: %t, %v; want neither a temperature nor an error", ok, err)
	}
	if celsius, ok, _ := hottest(fstest.MapFS{"thermal_zone0/temp": {Data: []byte("-5000")}}); !ok || celsius != -5 {
		t.Errorf("below zero: %v, %t; want -5", celsius, ok)
	}
}
