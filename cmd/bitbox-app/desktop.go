package main

import "cmp"

// desktopArgs are the arguments of a start with none: a click opens the window.
func desktopArgs(args []string) []string {
	if len(args) == 0 && clicked() {
		return []string{"window"}
	}
	return args
}

// environmentLanguage is the language of a terminal (locale(7)).
func environmentLanguage(environment func(string) string) string {
	return cmp.Or(environment("LC_ALL"), environment("LC_MESSAGES"), environment("LANG"))
}
