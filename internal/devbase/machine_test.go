package devbase

import (
	"testing"
	"testing/fstest"
)

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
