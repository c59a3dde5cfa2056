package main

import (
	"cmp"
	"strings"

	"github.com/inconshreveable/mousetrap"
	"golang.org/x/sys/windows"
)

// clicked tells whether the Explorer has started this program.
func clicked() bool { return mousetrap.StartedByExplorer() }

// systemLanguage is the language that this user has chosen for Windows.
func systemLanguage(environment func(string) string) string {
	chosen, err := windows.GetUserPreferredUILanguages(windows.MUI_LANGUAGE_NAME)
	if err != nil {
		chosen = nil
	}
	return cmp.Or(environmentLanguage(environment), strings.Join(chosen[:min(1, len(chosen))], ""))
}
