package slot_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/slot"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/slottest"
)

var seed = slottest.Seed(1)

func start(t *testing.T, m *slottest.Machine) *slot.Slots {
	t.Helper()
	s, err := m.Start()
	if err != nil {
		t.Fatalf("the machine does not start: %v", err)
	}
	return s
}

func names(t *testing.T, m *slottest.Machine) []string {
	t.Helper()
	all, err := m.ESP().Names()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestANewVersionStartsAndTheOneBeforeStaysBeside(t *testing.T) {
	m := slottest.NewMachine(slottest.NewRelease("1", "amd64", seed))
	for i := 2; i < 6; i++ {
		r := slottest.NewRelease(fmt.Sprint(i), "amd64", seed)
		s := start(t, m)
		before := s.Letter
		if err := s.Write(r.Header, bytes.NewReader(r.Parts)); err != nil {
			t.Fatal(err)
		}
		m.Restart()
		s = start(t, m)
		counted, err := s.Counted()
		if s.Running != fmt.Sprint(i) || s.Letter == before || !counted || err != nil {
			t.Fatalf("version %s runs from slot %s, counted %v, %v", s.Running, s.Letter, counted, err)
		}
		if err := s.Bless(); err != nil {
			t.Fatal(err)
		}
		want := []string{fmt.Sprintf("bitbox-base_%d.efi", i-1), fmt.Sprintf("bitbox-base_%d.efi", i)}
		if got := names(t, m); !slices.Equal(got, want) {
			t.Errorf("on the EFI partition are %q", got)
		}
	}
}

func TestAVersionThatNobodyBlessesIsGivenUpAfterThreeAttempts(t *testing.T) {
	m := slottest.NewMachine(slottest.NewRelease("1", "amd64", seed))
	r := slottest.NewRelease("2", "amd64", seed)
	if err := start(t, m).Write(r.Header, bytes.NewReader(r.Parts)); err != nil {
		t.Fatal(err)
	}
	var ran []string
	for range 5 {
		ran = append(ran, start(t, m).Running)
	}
	if !slices.Equal(ran, []string{"2", "2", "2", "1", "1"}) {
		t.Errorf("ran %q", ran)
	}
}

// A UKI is public. Somebody who writes to the EFI partition puts one back that was removed, and
// takes the running version's away.
func TestAVersionThatWasRemovedDoesNotStartIfItsUKIIsPutBack(t *testing.T) {
	one, two := slottest.NewRelease("1", "amd64", seed), slottest.NewRelease("2", "amd64", seed)
	m := slottest.NewMachine(one)
	if err := start(t, m).Write(two.Header, bytes.NewReader(two.Parts)); err != nil {
		t.Fatal(err)
	}
	m.Restart()
	s := start(t, m)
	if err := errors.Join(s.Bless(), s.Clear()); err != nil {
		t.Fatal(err)
	}
	m.Restart()
	if s := start(t, m); s.Running != "2" {
		t.Fatalf("version %s runs", s.Running)
	}
	i := one.Header.Image
	if err := errors.Join(m.ESP().Remove(slot.Entry{Version: "2"}.Name()),
		m.ESP().Write(slot.Entry{Version: "1"}.Name(), bytes.NewReader(one.Parts[i.RootSize+i.VeritySize:]))); err != nil {
		t.Fatal(err)
	}
	if s, err := m.Start(); err == nil {
		t.Errorf("version %s starts", s.Running)
	}
}

func TestTheMachineGoesBackByOrderAndForwardAgain(t *testing.T) {
	m := slottest.NewMachine(slottest.NewRelease("1", "amd64", seed))
	r := slottest.NewRelease("2", "amd64", seed)
	if err := start(t, m).Write(r.Header, bytes.NewReader(r.Parts)); err != nil {
		t.Fatal(err)
	}
	s := start(t, m)
	if err := errors.Join(s.Bless(), s.Try("1")); err != nil {
		t.Fatal(err)
	}
	s = start(t, m)
	if s.Running != "1" {
		t.Fatalf("version %s runs", s.Running)
	}
	// It is not well: forward again.
	if err := errors.Join(s.Restore("2"), s.Bless()); err != nil {
		t.Fatal(err)
	}
	if s = start(t, m); s.Running != "2" {
		t.Errorf("version %s runs", s.Running)
	}
	if err := s.Try("9"); err == nil {
		t.Error("a version that is not there is tried")
	}
}

// cutEverywhere cuts the power at each operation, with several outcomes of the last one, and
// returns what went wrong.
func cutEverywhere(t *testing.T, write func(*slot.Slots, slottest.Release) error) (problems []error, cuts int) {
	t.Helper()
	m := slottest.NewMachine(slottest.NewRelease("1", "amd64", seed))
	old, r := slottest.NewRelease("2", "amd64", seed), slottest.NewRelease("3", "amd64", seed)
	// Both slots are in use, as on a Base that was updated before.
	if err := start(t, m).Write(old.Header, bytes.NewReader(old.Parts)); err != nil {
		t.Fatal(err)
	}
	if err := start(t, m).Bless(); err != nil {
		t.Fatal(err)
	}
	whole := m.Clone(0)
	if err := write(start(t, whole), r); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= whole.Done; n++ {
		for outcome := range uint64(4) {
			cut := m.Clone(outcome)
			s := start(t, cut)
			cut.Left = n
			if err := write(s, r); !errors.Is(err, slottest.ErrCut) {
				t.Fatalf("cut at operation %d: %v", n, err)
			}
			cut.Restart()
			s, err := cut.Start()
			switch {
			case err != nil:
				problems = append(problems, fmt.Errorf("cut at operation %d, outcome %d: %w", n, outcome, err))
				continue
			case s.Running != "2" && s.Running != "3":
				problems = append(problems, fmt.Errorf("cut at operation %d: version %s runs", n, s.Running))
				continue
			}
			cuts++
			if s.Running == "2" {
				// It is begun again, and holds.
				if err := s.Write(r.Header, bytes.NewReader(r.Parts)); err != nil {
					t.Fatalf("again after a cut at operation %d: %v", n, err)
				}
				s = start(t, cut)
			}
			if err := s.Bless(); s.Running != "3" || err != nil {
				t.Fatalf("after a cut at operation %d version %s runs: %v", n, s.Running, err)
			}
			if again := start(t, cut); again.Running != "3" {
				t.Errorf("after a cut at operation %d version %s runs in the end", n, again.Running)
			}
		}
	}
	return problems, cuts
}

func TestAPowerCutAtAnyWriteLeavesTheOldVersionOrTheNewOneWhole(t *testing.T) {
	problems, cuts := cutEverywhere(t, func(s *slot.Slots, r slottest.Release) error {
		return s.Write(r.Header, bytes.NewReader(r.Parts))
	})
	for _, problem := range problems {
		t.Error(problem)
	}
	t.Logf("%d power cuts", cuts)
	// A writer that gives the UKI its name at once leaves a machine that does not start.
	problems, _ = cutEverywhere(t, func(s *slot.Slots, r slottest.Release) error {
		i := r.Header.Image
		if err := s.ESP.Write("bitbox-base_3+3-0.efi", bytes.NewReader(r.Parts[i.RootSize+i.VeritySize:])); err != nil {
			return err
		}
		return s.Write(r.Header, bytes.NewReader(r.Parts))
	})
	if len(problems) == 0 {
		t.Error("a writer that renames nothing passes; this test proves nothing")
	}
}

func TestARenameThatWasCutLeavesAVersionToStart(t *testing.T) {
	m := slottest.NewMachine(slottest.NewRelease("1", "amd64", seed))
	r := slottest.NewRelease("2", "amd64", seed)
	if err := start(t, m).Write(r.Header, bytes.NewReader(r.Parts)); err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func(*slot.Slots) error{
		"bless": (*slot.Slots).Bless, "abandon": (*slot.Slots).Abandon, "go back": func(s *slot.Slots) error { return s.Try("1") },
	} {
		for n := 1; n <= 3; n++ {
			for outcome := range uint64(4) {
				cut := m.Clone(outcome)
				s := start(t, cut)
				cut.Left = n
				err := do(s)
				cut.Restart()
				if s, startErr := cut.Start(); startErr != nil {
					t.Errorf("%s, cut at operation %d: %v", name, n, startErr)
				} else if err != nil && s.Running == "2" {
					// Done again it has one name.
					if err := errors.Join(s.Bless(), s.Restore("1")); err != nil || len(names(t, cut)) != 2 {
						t.Errorf("%s, cut at operation %d: %v, %q", name, n, err, names(t, cut))
					}
				}
			}
		}
	}
}

func TestAReleaseThatCannotBeWrittenChangesNothingThatStarts(t *testing.T) {
	good := slottest.NewRelease("2", "amd64", seed)
	for name, c := range map[string]struct {
		change func(*slottest.Release, *slottest.Machine, *slot.Slots)
		want   error
	}{
		"a flipped bit in the root": {func(r *slottest.Release, _ *slottest.Machine, _ *slot.Slots) { r.Parts[9] ^= 1 }, release.ErrDamaged},
		"a flipped bit in the UKI": {func(r *slottest.Release, _ *slottest.Machine, _ *slot.Slots) {
			r.Parts[len(r.Parts)-1] ^= 1
		}, release.ErrDamaged},
		"cut short": {func(r *slottest.Release, _ *slottest.Machine, _ *slot.Slots) { r.Parts = r.Parts[:len(r.Parts)/2] }, nil},
		"longer than the slot": {func(r *slottest.Release, _ *slottest.Machine, _ *slot.Slots) {
			r.Header.Image.RootSize = 1 << 30
		}, slot.ErrTooLong},
		"a root of another hash": {func(r *slottest.Release, _ *slottest.Machine, _ *slot.Slots) { r.Header.Image.RootHash[0] ^= 1 }, nil},
		"another disk":           {func(_ *slottest.Release, _ *slottest.Machine, s *slot.Slots) { s.Letter = "c" }, slot.ErrLayout},
		"the running version":    {func(r *slottest.Release, _ *slottest.Machine, _ *slot.Slots) { r.Header.Version = "1" }, nil},
	} {
		m := slottest.NewMachine(slottest.NewRelease("1", "amd64", seed))
		s := start(t, m)
		image := *good.Header.Image
		r := slottest.Release{Header: good.Header, Parts: bytes.Clone(good.Parts)}
		r.Header.Image = &image
		c.change(&r, m, s)
		err := s.Write(r.Header, bytes.NewReader(r.Parts))
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		m.Restart()
		if s := start(t, m); s.Running != "1" {
			t.Errorf("%s: version %s runs", name, s.Running)
		}
	}
}

func TestNamesOfUKIsAreReadAsSystemdBootDoes(t *testing.T) {
	for name, want := range map[string]slot.Entry{
		"bitbox-base_1.2.efi":           {Version: "1.2"},
		"bitbox-base_1.2+3-0.efi":       {Version: "1.2", Counted: true, Left: 3},
		"bitbox-base_1.2+0-3.efi":       {Version: "1.2", Counted: true, Done: 3},
		"bitbox-base_1.2+2.efi":         {Version: "1.2", Counted: true, Left: 2},
		"bitbox-base_1.2_4_gabc1.efi":   {Version: "1.2+4+gabc1"},
		"bitbox-base_0~2026.ab+1-2.efi": {Version: "0~2026.ab", Counted: true, Left: 1, Done: 2},
	} {
		if got, ok := slot.ParseEntry(name); !ok || got != want {
			t.Errorf("%s: %+v, %v", name, got, ok)
		}
	}
	for _, name := range []string{
		"", "bitbox-base_.efi", "bitbox-base_1.efi.new", "other_1.efi", "bitbox-base_../x.efi", "bitbox-base_-1.efi", "bitbox-base_1.EFI",
	} {
		if got, ok := slot.ParseEntry(name); ok {
			t.Errorf("%s is %+v", name, got)
		}
	}
	if e, ok := slot.ParseEntry((slot.Entry{Version: "1:2+3", Counted: true, Left: 1}).Name()); !ok || e.Version != "1:2+3" || e.Left != 1 {
		t.Errorf("a version comes back as %+v", e)
	}
	if bootdisk.RootSize != release.MaxRootSize || bootdisk.VeritySize != release.MaxVeritySize {
		t.Error("a slot and the largest release have other sizes")
	}
	entries := []slot.Entry{{Version: "1.9"}, {Version: "2", Counted: true}, {Version: "1.10"}, {Version: "1.11", Counted: true, Left: 1}}
	slot.Order(entries)
	var order []string
	for _, e := range entries {
		order = append(order, e.Version)
	}
	if !slices.Equal(order, []string{"1.11", "1.10", "1.9", "2"}) {
		t.Errorf("they start in the order %q", order)
	}
}
