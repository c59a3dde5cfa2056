//go:build unix

package main

import (
	"syscall"
	"time"
)

// cpuTime is what this process has used of the processor so far. Unlike the
// clock it does not count what others use.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		fail(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
