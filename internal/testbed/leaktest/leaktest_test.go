package leaktest

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestLeaksAreFound(t *testing.T) {
	goroutines, descriptors := running(), open()
	if len(descriptors) == 0 {
		t.Skip("there is no /proc here")
	}
	end := make(chan struct{})
	ended := make(chan struct{})
	go func() { defer close(ended); <-end }()
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	if left(&said, goroutines, descriptors, 0) {
		t.Error("it finds nothing")
	}
	for _, want := range []string{"TestLeaksAreFound.func", os.DevNull} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("it does not name %s: %s", want, &said)
		}
	}
	// left waits for a goroutine that is about to end.
	time.AfterFunc(50*time.Millisecond, func() { close(end); _ = file.Close() })
	if !left(&said, goroutines, descriptors, time.Minute) {
		t.Errorf("something is left: %s", &said)
	}
	<-ended
}

type tests int

func (code tests) Run() int { return int(code) }

func TestTheCodeOfTestsThatFailedIsKept(t *testing.T) {
	if got := Checked(tests(2)).Run(); got != 2 {
		t.Errorf("it is %d", got)
	}
	if got := Run(tests(0)); got != 0 {
		t.Errorf("it is %d", got)
	}
}
