package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// patience is far more than anything here takes.
const patience = 3 * time.Minute

func TestProgramsAreBounded(t *testing.T) {
	if out, err := Exec(t.Context(), "/usr/bin/env"); err != nil || out != "" {
		t.Errorf("the environment is %q, %v", out, err)
	}
	if _, err := Exec(t.Context(), "/usr/bin/head", "-c", fmt.Sprint(maxOutput+1), "/dev/zero"); err == nil ||
		!strings.Contains(err.Error(), "more than") {
		t.Errorf("a flood of output: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Exec(ctx, "/usr/bin/sleep", "60"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a program that does not end: %v", err)
	}
	if _, err := Exec(t.Context(), "/usr/bin/ls", "/does-not-exist"); err == nil || !strings.Contains(err.Error(), "does-not-exist") {
		t.Errorf("a failure does not say why: %v", err)
	}
}

// A program is ended, and has ended, when its reader stops.
func TestAProgramThatIsReadEndsWithItsReader(t *testing.T) {
	enough := errors.New("enough")
	pid := filepath.Join(t.TempDir(), "pid")
	// Product code uses no shell; a test may.
	program := []string{"/bin/sh", "-c", "echo $$ > " + pid + "; exec yes"}
	n := 0
	if err := lines(t.Context(), func(line []byte, _ bool) error {
		if n++; n == 1000 {
			return enough
		}
		return nil
	}, program...); !errors.Is(err, enough) {
		t.Errorf("ended with %v", err)
	}
	text, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/proc/" + strings.TrimSpace(string(text))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it runs on: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	begun := make(chan struct{})
	ended := make(chan error)
	go func() {
		ended <- lines(ctx, func([]byte, bool) error {
			close(begun)
			return nil
		}, "/bin/sh", "-c", "echo; exec sleep 1000")
	}()
	<-begun
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(patience):
		t.Error("it runs on after its reader has hung up")
	}
	if err := lines(t.Context(), func([]byte, bool) error { return nil }, "/bin/sh", "-c", "echo it burns >&2; exit 3"); err == nil ||
		!strings.Contains(err.Error(), "it burns") {
		t.Errorf("a program that fails: %v", err)
	}
}

func TestALongLineIsLeftOutAndTheNextOneIsRead(t *testing.T) {
	input := "one\n" + strings.Repeat("x", 2*maxJournalLine) + "\ntwo\n" + strings.Repeat("y", maxJournalLine-1) + "\nhalf"
	var got []int
	err := eachOutputLine(bufio.NewReaderSize(strings.NewReader(input), 1<<10), func(line []byte, _ bool) error {
		if line == nil {
			got = append(got, -1)
		} else {
			got = append(got, len(line))
		}
		return nil
	})
	if want := []int{3, -1, 3, maxJournalLine - 1}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}
