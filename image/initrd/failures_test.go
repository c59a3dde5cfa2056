//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
)

const (
	older = "bitbox-base_1.0.0.efi"
	newer = "bitbox-base_2.0.0~rc1.efi"
)

// loader is a machine with systemd's boot loader and a firmware. The roots of some versions are damaged.
type loader struct {
	t       *testing.T
	v       firmware
	entries []string // the first version is started, if no other was asked for once
	damaged []string
}

func newLoader(t *testing.T, entries ...string) *loader {
	l := &loader{t: t, v: firmware(t.TempDir()), entries: entries}
	l.put(loaderEntries, strings.Join(entries, "\x00"))
	return l
}

func (l *loader) put(name, text string) {
	l.t.Helper()
	content := append(binary.LittleEndian.AppendUint32(nil, persistent), encodeUTF16(text)...)
	if err := os.WriteFile(filepath.Join(string(l.v), name), content, 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// start is one start; it returns the version that started.
func (l *loader) start() (version string, err error) {
	l.t.Helper()
	selected := l.entries[slices.IndexFunc(l.entries, func(e string) bool { return versionOf(e) != "" })]
	if once := l.v.loaderText(loaderOneShot); len(once) == 1 {
		selected = once[0]
		if err := l.v.remove(loaderOneShot); err != nil {
			l.t.Fatal(err)
		}
	}
	l.put(loaderSelected, selected)
	if slices.Contains(l.damaged, selected) {
		return "", l.v.giveWay(errors.New("it is damaged"))
	}
	l.v.forgive()
	return selected, nil
}

func TestADamagedVersionGivesWayToTheOtherOne(t *testing.T) {
	l := newLoader(t, newer, older)
	l.damaged = []string{newer}
	for range 2 { // the damage lasts, and each start of the machine begins with the newer version
		for n := range bootdisk.Tries {
			if ran, err := l.start(); ran != "" || errors.Is(err, errStop) {
				t.Fatalf("start %d: %q, %v", n, ran, err)
			}
		}
		if ran, err := l.start(); ran != older || err != nil {
			t.Fatalf("then %q: %v", ran, err)
		}
	}
	// It may have been a loose cable.
	l.damaged = nil
	if ran, err := l.start(); ran != newer || err != nil {
		t.Errorf("without the damage %q runs: %v", ran, err)
	}
}

func TestWhereNoVersionStartsTheMachineStops(t *testing.T) {
	for name, entries := range map[string][]string{
		"one version": {newer}, "two versions": {newer, older}, "other systems beside": {"auto-reboot", newer, "linux.efi", older},
	} {
		l := newLoader(t, entries...)
		l.damaged = []string{newer, older}
		want := bootdisk.Tries
		if slices.Contains(entries, older) {
			want *= 2
		}
		for range 2 { // switched off and on it tries again
			var err error
			failed := 0
			for ; failed < 20 && !errors.Is(err, errStop); failed++ {
				_, err = l.start()
			}
			if failed != want {
				t.Errorf("%s: after %d failures it ends with %v", name, failed, err)
			}
		}
		l.damaged = nil
		if ran, err := l.start(); ran != newer || err != nil {
			t.Errorf("%s: repaired, %q starts: %v", name, ran, err)
		}
	}
}

// A version that was started once more in good order has all its tries again.
func TestFailuresAreForgottenWhenAVersionStarts(t *testing.T) {
	l := newLoader(t, newer)
	for range 3 * bootdisk.Tries {
		l.damaged = []string{newer}
		if _, err := l.start(); errors.Is(err, errStop) {
			t.Fatal("one failure in between stops the machine")
		}
		l.damaged = nil
		if ran, err := l.start(); ran != newer {
			t.Fatalf("it starts %q: %v", ran, err)
		}
	}
}

// The boot loader counts in the name of a new version; the name of the version stays the same.
func TestAVersionIsTheSameWithAndWithoutCounters(t *testing.T) {
	for entry, want := range map[string]string{
		"bitbox-base_2.0.0~RC1+3-0.efi": newer, "bitbox-base_2.0.0~rc1+2-1.efi": newer, "bitbox-base_2.0.0~rc1+1.efi": newer, newer: newer,
		"auto-firmware": "", "linux.efi": "", "bitbox-base_1.conf": "", "": "",
	} {
		if got := versionOf(entry); got != want {
			t.Errorf("%q is %q", entry, got)
		}
	}
	for text, want := range map[string]failures{
		"": {}, "2 " + newer + "\n": {newer: 2}, "x\n-1 " + newer + "\n1 " + older: {older: 1}, "1 linux.efi\n\x00\xff": {},
		"1 bitbox-base_2+3-0.efi\n": {},
	} {
		if got := parseFailures(text); !maps.Equal(got, want) {
			t.Errorf("%q is %v", text, got)
		}
	}
}

// Whatever the firmware says, a failure stays one, and nothing is started because of it.
func TestAFirmwareThatSaysNonsenseChangesNothing(t *testing.T) {
	failure := errors.New("it is damaged")
	silent := firmware(t.TempDir())
	if err := silent.giveWay(failure); !errors.Is(err, failure) || errors.Is(err, errStop) {
		t.Errorf("another boot loader: %v", err)
	}
	for _, text := range []string{"", "x", strings.Repeat("x", maxVariable+1)} {
		l := newLoader(t, newer, older)
		l.put(loaderSelected, newer)
		if err := os.WriteFile(filepath.Join(string(l.v), failuresVariable), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := l.v.giveWay(failure); !errors.Is(err, failure) || errors.Is(err, errStop) {
			t.Errorf("a variable of %d bytes: %v", len(text), err)
		}
		if once := l.v.loaderText(loaderOneShot); once != nil && !slices.Equal(once, []string{newer}) {
			t.Errorf("a variable of %d bytes starts %q", len(text), once)
		}
	}
}
