//go:build linux

package main

import (
	"bytes"
	"errors"
	"regexp"
	"sync"
)

// lockedBuffer is what a program prints while somebody reads it.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String returns all that was printed.
func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// find sets what the group of a pattern matched.
func (b *lockedBuffer) find(pattern *regexp.Regexp, found *string) error {
	groups := pattern.FindStringSubmatch(b.String())
	if groups == nil {
		return errors.New("it was not printed yet")
	}
	*found = groups[1]
	return nil
}
