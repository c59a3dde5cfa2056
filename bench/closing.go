package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"time"
)

// closingTest measures how long it takes to close, in a Base that is booted. It prints two
// lines: one when the Base is quiet, one while an intruder in the Middleware floods the helper.
const closingTest = "TestClosingDoesNotDependOnLoad"

var (
	quietLine  = regexp.MustCompile(`quiet: lease (\S+), cut (\S+), lockdown (\S+)\n`)
	loadedLine = regexp.MustCompile(`under the flood: lease (\S+), cut (\S+), lockdown (\S+)\n`)
)

// closings are what is measured, in the order of the lines.
var closings = []string{"end of a lease", "cut of an extra API's connection", "lockdown"}

// measureClosing takes the figures of the test. Only root can boot a Base.
func measureClosing(r *report) error {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "left out: to boot a Base needs root")
		return nil
	}
	out, err := exec.Command("go", "test", "-count=1", "-v", "-run", "^"+closingTest+"$", "./test/e2e").CombinedOutput()
	return errors.Join(err, r.addClosing(string(out)))
}

// addClosing adds the figures of what the test has printed.
func (r *report) addClosing(out string) error {
	quiet, loaded := quietLine.FindStringSubmatch(out), loadedLine.FindStringSubmatch(out)
	if quiet == nil || loaded == nil {
		return fmt.Errorf("%s has printed no times:\n%s", closingTest, out)
	}
	for i, what := range closings {
		before, err := time.ParseDuration(quiet[i+1])
		under, otherErr := time.ParseDuration(loaded[i+1])
		if err := errors.Join(err, otherErr); err != nil {
			return err
		}
		r.add(figure{what: what + ", while the helper is flooded", unit: "ms", rival: "itself when quiet",
			ours: float64(under.Milliseconds()), their: float64(before.Milliseconds()), least: leastOfClosing(before)})
	}
	return nil
}

// leastOfClosing is the ratio to be reached: twice the quiet time is allowed, or one second
// more where that is longer.
func leastOfClosing(quiet time.Duration) float64 {
	return float64(quiet) / float64(max(2*quiet, quiet+time.Second))
}
