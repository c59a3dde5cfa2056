package main

// clicked: on Linux the file of the desktop says which command it starts.
func clicked() bool { return false }

func systemLanguage(environment func(string) string) string { return environmentLanguage(environment) }
