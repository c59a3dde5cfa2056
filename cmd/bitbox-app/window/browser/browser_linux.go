package browser

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// chromiums are the names of browsers made from Chromium, the best first.
var chromiums = []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "brave-browser", "microsoft-edge"}

// systemArgs: without the first one some desktops ask for the password of a keyring.
var systemArgs = []string{"--password-store=basic"}

var apart = &syscall.SysProcAttr{Setpgid: true}

// screen tells whether a browser could show anything.
func screen() bool { return os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != "" }

func findChromium() (string, bool) {
	for _, name := range chromiums {
		if path, err := exec.LookPath(name); err == nil && !confined(path) {
			return path, true
		}
	}
	return "", false
}

// scriptStart is how much of a program is read to see what it starts.
const scriptStart = 16 << 10

// confined tells whether a program is a snap or a flatpak, or a script that starts one. These
// cannot use a profile in a folder of ours.
func confined(path string) bool {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return true
	}
	if marked(target) || marked(path) {
		return true
	}
	file, err := os.Open(target)
	if err != nil {
		return true
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, scriptStart))
	return err != nil || bytes.HasPrefix(text, []byte("#!")) && marked(string(text))
}

func marked(text string) bool {
	return strings.Contains(text, "/snap/") || strings.HasSuffix(text, "/snap") || strings.Contains(text, "flatpak")
}

func openDefault(address string) error { return start("xdg-open", address) }
