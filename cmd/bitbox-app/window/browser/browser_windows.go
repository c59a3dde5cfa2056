package browser

import (
	"path/filepath"
	"syscall"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// chromiums are browsers made from Chromium, as their installers register them, the best first.
var chromiums = []string{"chrome.exe", "msedge.exe", "brave.exe"}

var systemArgs []string

var apart = &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP}

// screen tells whether a browser could show anything.
func screen() bool { return true }

func findChromium() (string, bool) {
	for _, name := range chromiums {
		for _, root := range []registry.Key{registry.CURRENT_USER, registry.LOCAL_MACHINE} {
			key, err := registry.OpenKey(root, `SOFTWARE\Microsoft\Windows\CurrentVersion\App Paths\`+name, registry.QUERY_VALUE)
			if err != nil {
				continue
			}
			path, _, err := key.GetStringValue("")
			_ = key.Close() // it was only read
			if err == nil && filepath.IsAbs(path) {
				return path, true
			}
		}
	}
	return "", false
}

func openDefault(address string) error {
	text, err := windows.UTF16PtrFromString(address)
	if err != nil {
		return err
	}
	verb, err := windows.UTF16PtrFromString("open")
	if err != nil {
		return err
	}
	return windows.ShellExecute(0, verb, text, nil, nil, windows.SW_SHOWNORMAL)
}
