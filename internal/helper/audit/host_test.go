package audit

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAProgramIsNamedByItsPath(t *testing.T) {
	if _, err := (Host{}).Run(context.Background(), "", "true"); err == nil {
		t.Error("a program was looked for in PATH")
	}
}

func TestAProgramInheritsNoEnvironment(t *testing.T) {
	t.Setenv("LD_PRELOAD_OF_SOMEBODY", "x")
	out, err := Host{}.Run(context.Background(), "", "/usr/bin/env")
	if err != nil || out.Code != 0 || strings.Contains(out.Stdout, "SOMEBODY") {
		t.Errorf("%+v, %v", out, err)
	}
	out, err = Host{}.Run(context.Background(), "a question", "/usr/bin/cat")
	if err != nil || out.Stdout != "a question" {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestAFailingProgramIsNotAnError(t *testing.T) {
	out, err := Host{}.Run(context.Background(), "", "/usr/bin/false")
	if err != nil || out.Code != 1 {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestAHangingProgramIsEnded(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if out, err := (Host{}).Run(ctx, "", "/usr/bin/sleep", "600"); err == nil {
		t.Errorf("%+v", out)
	}
}

func TestAProgramWithEndlessOutputIsEnded(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := (Host{}).Run(ctx, "", "/usr/bin/cat", "/dev/zero"); err == nil || ctx.Err() != nil {
		t.Errorf("%v, %v", err, ctx.Err())
	}
}

func TestAFileIsReadWithinBounds(t *testing.T) {
	directory := t.TempDir()
	long, pipe := filepath.Join(directory, "long"), filepath.Join(directory, "pipe")
	if err := os.WriteFile(long, make([]byte, maxFileSize+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (Host{}).ReadFile(long); err == nil {
		t.Error("a file without end was read")
	}
	// A pipe without a writer must not block the audit.
	if content, err := (Host{}).ReadFile(pipe); err == nil && len(content) > 0 {
		t.Errorf("read %q", content)
	}
}
