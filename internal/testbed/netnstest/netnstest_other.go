//go:build !linux

package netnstest

import "fmt"

func reexec() (exitCode int, done bool, err error) {
	return 0, false, fmt.Errorf("%w: it needs Linux", ErrUnavailable)
}

func setUp(string) error { return fmt.Errorf("%w: it needs Linux", ErrUnavailable) }

// IP is for Linux only.
func IP(string) error { return fmt.Errorf("%w: it needs Linux", ErrUnavailable) }
