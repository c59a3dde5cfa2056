package browser

import (
	"os"
	"syscall"
)

// chromiums are browsers made from Chromium, the best first.
var chromiums = []string{
	"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
	"/Applications/Chromium.app/Contents/MacOS/Chromium",
	"/Applications/Brave Browser.app/Contents/MacOS/Brave Browser",
	"/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
}

var systemArgs []string

var apart = &syscall.SysProcAttr{Setpgid: true}

// screen tells whether a browser could show anything; "open" fails if it cannot.
func screen() bool { return true }

func findChromium() (string, bool) {
	for _, path := range chromiums {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, true
		}
	}
	return "", false
}

func openDefault(address string) error { return start("/usr/bin/open", address) }
