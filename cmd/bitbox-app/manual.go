//go:build manual

package main

import (
	"fmt"
	"os"

	"github.com/BitBoxSwiss/bitbox-base/internal/app/terminal"
	"github.com/BitBoxSwiss/bitbox-base/packaging/manual"
)

// With this build tag the program only writes its man pages and completions.
func init() {
	if err := manual.Main((&program{in: os.Stdin, out: &terminal.Output{To: os.Stdout}}).rootCommand()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
