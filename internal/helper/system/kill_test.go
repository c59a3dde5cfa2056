package system

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/ledger"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/machinetest"
)

const (
	directoryVariable = "BITBOX_BASE_SYSTEM_TEST_DIRECTORY"
	stepVariable      = "BITBOX_BASE_SYSTEM_TEST_STEP"
	tryVariable       = "BITBOX_BASE_SYSTEM_TEST_TRY"
	resetVariable     = "BITBOX_BASE_SYSTEM_TEST_RESET"
	raiseVariable     = "BITBOX_BASE_SYSTEM_TEST_RAISE"
	seedFile          = "seed"
)

// victim is a helper that kills itself (SIGKILL) before the step that it is told,
// while it applies a document. "save 2" is the second save.
func victim() {
	directory := os.Getenv(directoryVariable)
	armed, seen := false, map[string]int{}
	var mu sync.Mutex
	failpoint.Set(func(step string) error {
		mu.Lock()
		defer mu.Unlock()
		if armed {
			seen[step]++
		}
		if wanted := os.Getenv(stepVariable); armed && (step == wanted || fmt.Sprintf("%s %d", step, seen[step]) == wanted) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	})
	h, err := Open(goldenConfig(machinetest.New(directory), directory))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	go h.Run(ctx)
	if err := h.Reapply(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	armed = true // before the worker has anything to do
	if os.Getenv(resetVariable) != "" {
		_, err := helperclient.Client{Port: h.Port(caller.Console)}.Do(ctx, resetHere(), nil)
		fmt.Fprintln(os.Stderr, "it was not killed:", err)
		os.Exit(1)
	}
	signed, err := openingDocument(h)
	if err == nil {
		_, err = helperclient.Client{Port: h.Port(caller.Middleware)}.Do(ctx, submitRequest(signed), nil)
	}
	fmt.Fprintln(os.Stderr, "it was not killed:", err)
	os.Exit(1)
}

// openingDocument signs with the seed that the parent has left beside the state.
func openingDocument(h *Helper) ([]byte, error) {
	seed, err := os.ReadFile(filepath.Join(h.config.Directory, seedFile))
	if err != nil {
		return nil, err
	}
	key, err := parseAppSeed(seed)
	if err != nil {
		return nil, err
	}
	a := &app{seed: key, via: helperclient.Client{Port: h.Port(caller.Middleware)}}
	view, err := a.lookAt(context.Background(), h.StateKey())
	if err != nil {
		return nil, err
	}
	challenge, err := a.askChallenge(context.Background())
	if err != nil {
		return nil, err
	}
	change := open
	if role := os.Getenv(raiseVariable); role != "" {
		change = func(p *posture.Posture, _ uint64) { p.Apps[1].Role = basev1.Role(basev1.Role_value[role]) }
	}
	doc, err := draftFrom(view, challenge, os.Getenv(tryVariable) != "", change)
	if err != nil {
		return nil, err
	}
	return posture.SignDocument(doc, key), nil
}

func TestAHelperKilledAtAnyStepLeavesOldOrNewWhole(t *testing.T) {
	steps := append([]string{"save", "saved"}, applySteps(t)...)
	for _, step := range steps {
		for _, try := range []string{"", "yes"} {
			if try != "" && step != "switch" && step != "verify" && step != "saved" {
				continue // as without
			}
			t.Run(step+" "+try, func(t *testing.T) {
				b := newBase(t)
				b.start()
				a := b.pair(b.as(caller.Middleware), "phone", owner)
				b.settled()
				before := b.helper.Effective()
				b.stop()
				if err := os.WriteFile(filepath.Join(b.directory, seedFile), a.seed.Expose(), 0o600); err != nil {
					t.Fatal(err)
				}
				b.kill(step, try)

				// The servers have read the old configuration or the new one, never a more open
				// one.
				after := opened(before)
				if err := b.world.Between(before, after); err != nil {
					t.Fatalf("right after the kill: %v", err)
				}
				// At boot nothing that was not settled is read by anybody.
				if err := ledger.Prepare(b.config.Config); err != nil {
					t.Fatalf("prepare: %v", err)
				}
				if err := onDisk(b.directory, before); err != nil {
					t.Errorf("a server that starts now reads what was never settled: %v", err)
				}
				b.start()
				b.settled()
				if !posture.EquallyOpen(b.helper.Effective(), before) {
					t.Errorf("in force is %+v, was %+v", b.helper.Effective(), before)
				}
				a.via = b.as(caller.Middleware)
				a.mustSubmit(open)
				b.settled()
			})
		}
	}
}

// kill runs a victim on the Base's state.
func (b *base) kill(step, try string, more ...string) {
	b.t.Helper()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), roleVariable+"=victim", directoryVariable+"="+b.directory, stepVariable+"="+step, tryVariable+"="+try)
	command.Env = append(command.Env, more...)
	out, err := command.CombinedOutput()
	var ended *exec.ExitError
	if !errors.As(err, &ended) || ended.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		b.t.Fatalf("the helper was not killed at %q: %v\n%s", step, err, out)
	}
}

// opened is what is in force once `open` is.
func opened(e posture.Effective) posture.Effective {
	e.Endpoints = append(e.Endpoints, posture.Endpoint{Kind: posture.KindElectrum, Port: 50002, Remaining: 24 * time.Hour})
	key := testKey()
	e.SSH = &posture.SSH{Keys: append(e.KnownSSHKeys, key), Remaining: time.Hour}
	return e
}

// onDisk tells whether the generation in force is e's; nil: it is.
func onDisk(directory string, e posture.Effective) error {
	files, err := generation.Render(e)
	if err != nil {
		return err
	}
	drift, err := generation.NewStore(directory).Verify(files)
	if err == nil && len(drift) > 0 {
		err = fmt.Errorf("%v", drift)
	}
	return err
}

// A generation of a try that the power cut is not the one that servers read when
// the machine comes up again. The claim can fail: without Prepare they would.
func TestATryDoesNotOutliveAPowerCut(t *testing.T) {
	b := newBase(t)
	b.start()
	a := b.pair(b.as(caller.Middleware), "phone", owner)
	b.settled()
	before := b.helper.Effective()
	if err := a.submitSigned(posture.SignDocument(a.draft(true, open), a.seed)); err != nil {
		t.Fatal(err)
	}
	b.stop()
	b.config.BootID = "boot 2"
	if onDisk(b.directory, before) == nil {
		t.Fatal("the try is not on the disk, so there is nothing to undo")
	}
	if err := ledger.Prepare(b.config.Config); err != nil {
		t.Fatal(err)
	}
	if err := onDisk(b.directory, before); err != nil {
		t.Errorf("the try has outlived the power cut: %v", err)
	}
}

func TestSSHDoesNotOutliveAReboot(t *testing.T) {
	b, _ := newOpenBase(t)
	b.stop()
	b.config.BootID = "boot 2"
	if err := ledger.Prepare(b.config.Config); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.settled()
	if e := b.helper.Effective(); e.SSH != nil || len(e.Endpoints) != 2 {
		t.Errorf("after a reboot in force is %+v", e)
	}
}

// A state that cannot be used leaves a closed Base, and the file as it is.
func TestADamagedStateLeavesAClosedBase(t *testing.T) {
	b, _ := newOpenBase(t)
	b.stop()
	path := filepath.Join(b.directory, ledger.StateFile)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(content); i += 64 {
		content[i] ^= 1
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ledger.Prepare(b.config.Config); err != nil {
		t.Fatal(err)
	}
	if err := onDisk(b.directory, ledger.Closed()); err != nil {
		t.Errorf("the Base is not closed: %v", err)
	}
	if _, err := Open(b.config); err == nil {
		t.Error("the helper runs on a damaged state")
	}
}
