package main

import (
	"os"
	"strings"

	"golang.org/x/term"
)

// clicked tells whether the Finder has started the program in its bundle.
func clicked() bool {
	program, err := os.Executable()
	return err == nil && strings.Contains(program, ".app/Contents/MacOS/") && !term.IsTerminal(int(os.Stdout.Fd()))
}

func systemLanguage(environment func(string) string) string { return environmentLanguage(environment) }
