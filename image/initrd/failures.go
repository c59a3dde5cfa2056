//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
)

// Variables of systemd's boot loader (https://systemd.io/BOOT_LOADER_INTERFACE): the versions on the EFI partition in the
// order in which it starts them, the one that it has started, and the one that it is to start next time only.
const (
	loaderEntries  = "LoaderEntries-" + loaderVendor
	loaderSelected = "LoaderEntrySelected-" + loaderVendor
	loaderOneShot  = "LoaderEntryOneShot-" + loaderVendor
	loaderVendor   = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
)

const (
	// failuresVariable is ours: how often the root of each version could not be opened, since a version was last started.
	failuresVariable = "BitboxBaseFailures-3a1f6d2e-8c57-4e0b-9d44-71b0a5c2e896"
	// maxVariable bounds each variable that is read, in bytes.
	maxVariable = 16 << 10
	// persistent variables stay in the firmware's memory, and can be read and written while the system runs (UEFI 2.10,
	// section 8.2).
	persistent = 1 | 2 | 4
	// immutable is FS_IMMUTABLE_FL (linux/fs.h).
	immutable = 0x10
)

// failures is how often each version failed, by its file's name without counters.
type failures map[string]int

var counters = regexp.MustCompile(`\+[0-9]+(-[0-9]+)?\.efi$`)

// versionOf is the name of a version's file without the boot loader's counters; empty: it is no version of ours.
func versionOf(entry string) string {
	name := counters.ReplaceAllString(strings.ToLower(entry), ".efi")
	if !strings.HasPrefix(name, bootdisk.ImageID+"_") || !strings.HasSuffix(name, ".efi") {
		return ""
	}
	return name
}

// decision is what follows from a failure.
type decision struct {
	failures failures // to keep
	// next is the entry to start next; empty: no version is left, and the machine stops.
	next string
}

// decide looks at a failure of the selected version. One that has used up its tries gives way to the first one that has not, as
// systemd's boot loader does with a new version. When none is left the machine stops, and forgets: after it was switched off and
// on, each version has its tries again, since the fault may have been a cable's.
func decide(before failures, selected string, entries []string) decision {
	now := maps.Clone(before)
	now[versionOf(selected)]++
	for _, entry := range append([]string{selected}, entries...) {
		if version := versionOf(entry); version != "" && now[version] < bootdisk.Tries {
			return decision{now, entry}
		}
	}
	return decision{}
}

// text is what is kept in the variable: a line "COUNT NAME" for each version.
func (s failures) text() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s)) {
		fmt.Fprintf(&b, "%d %s\n", s[name], name)
	}
	return b.String()
}

// parseFailures reads text. Lines that it does not understand are left out.
func parseFailures(text string) failures {
	s := failures{}
	for line := range strings.Lines(text) {
		count, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if n, err := strconv.Atoi(count); err == nil && n > 0 && versionOf(name) == name {
			s[name] = n
		}
	}
	return s
}

// errStop: no version is left.
var errStop = errors.New("no other version is on this disk")

// giveWay counts a failure of the root, and has the machine start another version next if this one has used up its tries. It
// returns the failure, with what follows. Where the firmware keeps no variables nothing can be counted: then a damaged version
// is started again and again.
func (v firmware) giveWay(failure error) error {
	selected, entries := v.loaderText(loaderSelected), v.loaderText(loaderEntries)
	if len(selected) != 1 || versionOf(selected[0]) == "" {
		return failure // another boot loader
	}
	content, err := v.read(failuresVariable)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(failure, err)
	}
	d := decide(parseFailures(string(content)), selected[0], entries)
	if d.next == "" {
		if err := v.remove(failuresVariable); err != nil {
			return errors.Join(failure, err) // it would stop for ever
		}
		return fmt.Errorf("%w; and %w", failure, errStop)
	}
	if err := errors.Join(v.write(failuresVariable, []byte(d.failures.text())), v.write(loaderOneShot, encodeUTF16(d.next))); err != nil {
		return errors.Join(failure, err)
	}
	return fmt.Errorf("%w; %s is started next", failure, versionOf(d.next))
}

// forgive forgets all failures: a version starts.
func (v firmware) forgive() {
	if content, err := v.read(failuresVariable); err == nil {
		say("A version on this disk failed (number of times, name): %s. Another one starts.", strings.TrimSpace(string(content)))
		_ = v.remove(failuresVariable) // else the next failure is counted too high
	}
}

// firmware is the directory of its variables.
type firmware string

func (v firmware) read(name string) ([]byte, error) {
	content, err := os.ReadFile(filepath.Join(string(v), name))
	if err != nil {
		return nil, err
	}
	if len(content) < attributesSize || len(content) > maxVariable {
		return nil, fmt.Errorf("the firmware's variable %s has %d bytes", name, len(content))
	}
	return content[attributesSize:], nil
}

// attributesSize is what stands before a variable's value in its file, in bytes.
const attributesSize = 4

// write writes a variable that stays in the firmware's memory, in one write, as efivarfs wants it.
func (v firmware) write(name string, value []byte) error {
	path := filepath.Join(string(v), name)
	if err := allowChange(path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(binary.LittleEndian.AppendUint32(nil, persistent), value...))
	return errors.Join(err, f.Close())
}

func (v firmware) remove(name string) error {
	path := filepath.Join(string(v), name)
	if err := allowChange(path); err != nil {
		return err
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// allowChange takes the flag away with which the kernel keeps programs from removing variables by accident.
func allowChange(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil || flags&immutable == 0 {
		return nil // a write tells what is wrong
	}
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags&^immutable)
}

// loaderText reads a variable of the boot loader: texts in UTF-16, with a zero after each.
func (v firmware) loaderText(name string) []string {
	content, err := v.read(name)
	if err != nil || len(content)%2 != 0 {
		return nil
	}
	var units []uint16
	for at := 0; at < len(content); at += 2 {
		units = append(units, binary.LittleEndian.Uint16(content[at:]))
	}
	return strings.FieldsFunc(string(utf16.Decode(units)), func(r rune) bool { return r == 0 })
}

func encodeUTF16(text string) []byte {
	var b []byte
	for _, unit := range utf16.Encode([]rune(text + "\x00")) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return b
}
