//go:build manual

package main

import (
	"fmt"
	"os"

	"github.com/BitBoxSwiss/bitbox-base/packaging/manual"
)

// Built with this tag the program writes its man pages and completions, and nothing else.
func init() {
	if err := manual.Main((&program{}).rootCommand()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
