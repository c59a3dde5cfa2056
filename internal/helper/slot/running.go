package slot

import (
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// ErrNoImage: this machine is a Debian with the package.
var ErrNoImage = reason.New("this machine does not run the image")

const (
	osRelease   = "/usr/lib/os-release"
	commandLine = "/proc/cmdline"
	// variables is where the kernel shows those of UEFI, and globalVariable ends the names of the
	// specification's own (section 3.3).
	variables      = "/sys/firmware/efi/efivars"
	globalVariable = "-8be4df61-93ca-11d2-aa0d-00e098032b8c"
	// attributesSize is what stands before a variable's value in its file, in bytes.
	attributesSize = 4

	// maxText bounds each file that is read, in bytes.
	maxText = 64 << 10
)

// Look tells what this machine runs. ErrNoImage: no image.
func Look() (posture.RunningImage, error) { return LookWith(ReadText) }

// LookWith is Look with another way to read files.
func LookWith(read func(path string) ([]byte, error)) (posture.RunningImage, error) {
	var r posture.RunningImage
	letter, err := read(filepath.Join(bootdisk.Directory, bootdisk.SlotFile))
	if errors.Is(err, fs.ErrNotExist) {
		return r, ErrNoImage
	}
	if err != nil {
		return r, reason.Errorf("ask which slot runs: %w", err)
	}
	r.Slot = strings.TrimSuffix(string(letter), "\n")
	if Opposite(r.Slot) == "" {
		return r, reason.Errorf("ask which slot runs: there is no slot %q", r.Slot)
	}
	line, err := read(commandLine)
	if err != nil {
		return r, reason.Errorf("ask which root file system runs: %w", err)
	}
	text, err := bootdisk.RootHash(string(line))
	if err != nil {
		return r, err
	}
	hash, err := hex.DecodeString(text)
	if err != nil {
		return r, err
	}
	r.RootHash = [32]byte(hash)
	system, err := read(osRelease)
	if err != nil {
		return r, reason.Errorf("ask which version runs: %w", err)
	}
	if r.Version = field(string(system), "IMAGE_VERSION"); !release.IsVersion(r.Version) {
		return r, reason.Errorf("ask which version runs: %q is none", r.Version)
	}
	r.Architecture, r.SecureBoot = runtime.GOARCH, secureBoot(read)
	return r, nil
}

// secureBoot reads the two variables that say whether Secure Boot is on. If they cannot be
// read, it is not on.
func secureBoot(read func(string) ([]byte, error)) string {
	missing := 0
	variable := func(name string) string {
		b, err := read(filepath.Join(variables, name+globalVariable))
		if errors.Is(err, fs.ErrNotExist) {
			missing++
		}
		if err != nil || len(b) != attributesSize+1 {
			return ""
		}
		return map[byte]string{0: "no", 1: "yes"}[b[attributesSize]]
	}
	setup, on := variable("SetupMode"), variable("SecureBoot")
	switch {
	case missing == 2:
		return "none"
	case setup == "yes":
		return "setup"
	case setup == "no" && on == "yes":
		return "on"
	case on == "no":
		return "off"
	}
	return "unknown"
}

// field reads a line NAME=value or NAME="value" of os-release(5).
func field(text, name string) string {
	for line := range strings.Lines(text) {
		if value, found := strings.CutPrefix(strings.TrimSpace(line), name+"="); found {
			return strings.Trim(value, `"'`)
		}
	}
	return ""
}

// ReadText reads the beginning of a file.
func ReadText(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return io.ReadAll(io.LimitReader(file, maxText))
}
