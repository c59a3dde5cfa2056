//go:build !unix

package main

import "time"

var started = time.Now()

// cpuTime is the clock, where there is no better measure.
func cpuTime() time.Duration { return time.Since(started) }
