package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// The environment of an App that kills itself: where its Base and its directory are, and at which
// write it dies, counted from 1 (0: it survives).
const (
	victimAddress = "BITBOX_TEST_VICTIM_ADDRESS"
	victimDir     = "BITBOX_TEST_VICTIM_DIR"
	victimPoint   = "BITBOX_TEST_VICTIM_POINT"
)

// TestVictim is the App of TestKilledAppWorksOrSaysPairAgain, in its own process. It does nothing
// when run alone.
func TestVictim(t *testing.T) {
	address := os.Getenv(victimAddress)
	if address == "" {
		return
	}
	dieAt, err := strconv.Atoi(os.Getenv(victimPoint))
	if err != nil {
		t.Fatal(err)
	}
	a := appIn(t, os.Getenv(victimDir))
	points := 0
	a.store.failpoint = func(point string) {
		if points++; points == dieAt {
			fmt.Println("dying", point)
			self, err := os.FindProcess(os.Getpid())
			if err == nil {
				err = self.Kill() // SIGKILL: nothing is cleaned up
			}
			t.Error("not dead:", err)
			select {}
		}
	}
	if _, err := a.Pair(context.Background(), []string{address}, PairOptions{Confirm: sayYes}); err != nil {
		t.Fatal(err)
	}
	fmt.Println("lived through", points)
}

// The App is killed before and after each of its writes. Afterwards it works, or it has no
// pairing and pairs again.
func TestKilledAppWorksOrSaysPairAgain(t *testing.T) {
	victim := func(b *fakeBase, dir string, point int) (output string) {
		command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestVictim$", "-test.v")
		command.Env = append(os.Environ(), victimAddress+"="+b.address(), victimDir+"="+dir, victimPoint+"="+strconv.Itoa(point))
		out, err := command.CombinedOutput()
		if ended := new(exec.ExitError); err != nil && !errors.As(err, &ended) {
			t.Fatal(err)
		}
		return string(out)
	}
	worked, again := 0, 0
	for point := 1; ; point++ {
		b, dir := newFakeBase(t), t.TempDir()
		output := victim(b, dir, point)
		if strings.Contains(output, "lived through") {
			break
		}
		if !strings.Contains(output, "dying") {
			t.Fatalf("point %d: %s", point, output)
		}
		a := appIn(t, dir)
		call := func() error {
			session, err := a.Open("")
			if err != nil {
				return err
			}
			defer session.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err = session.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
			return err
		}
		switch err := call(); {
		case err == nil:
			worked++
			if list := bases(t, a); len(list) != 1 || list[0].State != Active {
				t.Errorf("point %d works, but has %+v (%s)", point, list, output)
			}
		case errors.Is(err, ErrNoSuchBase):
			again++
			mustPair(t, a, b)
			if err := call(); err != nil {
				t.Errorf("point %d: after pairing again: %v (%s)", point, err, output)
			}
		default:
			t.Errorf("point %d: %v (%s)", point, err, output)
		}
	}
	// Both outcomes must occur, or the kills were not where they should be.
	if worked < 3 || again < 3 {
		t.Errorf("%d worked, %d had to pair again", worked, again)
	}
}
