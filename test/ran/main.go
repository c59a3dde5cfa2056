// Command ran reads the output of `go test -json` from its standard input, and prints a summary
// while it arrives: a line for each package, a short report of each failure, and after a period
// of silence the tests that are running. At the end it prints how many tests passed, failed and
// were skipped.
//
//	go test -json ./... | ran -log build/test.log -claims docs/security-claims.md
//
// The log has everything that the tests print, test by test.
//
// With -claims, each test that the table of security claims names must have run and passed. A
// skipped test is an error in CI (environment variable CI) and as root. Elsewhere it is only a
// remark, because the tests against the real servers need root.
//
// It ends with 1 if a test failed or a named test did not run.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/test/repository/claims"
)

const (
	module = "github.com/BitBoxSwiss/bitbox-base/"
	// linesOfMessage is how much of one message of a test is shown, from its beginning and
	// as much from its end; the rest, such as most of a machine's journal, is in the log.
	linesOfMessage = 5
	// linesOfFailure is how much of one failed test, or package, is shown.
	linesOfFailure = 40
	// silence is after how long without news the running tests are named.
	silence = 30 * time.Second
	// longestLine bounds one line of input, in bytes.
	longestLine = 16 << 20
)

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // in place of Package in what a build prints
	Test       string
	Output     string
	Elapsed    float64 // seconds
}

func main() {
	logFile := flag.String("log", "", "the file that everything is written to")
	table := flag.String("claims", "", "the table of security claims")
	flag.Parse()
	good, err := run(*logFile, *table)
	if err != nil {
		fmt.Fprintln(os.Stderr, "ran:", err)
	}
	if err != nil || !good {
		os.Exit(1)
	}
}

func run(logFile, table string) (good bool, err error) {
	var named []string
	if table != "" {
		content, err := os.ReadFile(table)
		if err != nil {
			return false, err
		}
		named = claims.Tests(string(content))
	}
	log := io.Discard
	if logFile != "" {
		if err := os.MkdirAll(filepath.Dir(logFile), 0o755); err != nil {
			return false, err
		}
		file, err := os.Create(logFile)
		if err != nil {
			return false, err
		}
		defer file.Close()
		log = file
	}
	r := &report{out: os.Stdout, log: log, logFile: logFile, now: time.Now}
	r.begun = r.now()
	ticks := time.NewTicker(silence / 10)
	defer ticks.Stop()
	if err := r.follow(os.Stdin, ticks.C); err != nil {
		return false, fmt.Errorf("read the tests' output: %w", err)
	}
	strict := os.Getenv("CI") != "" || os.Geteuid() == 0
	return r.finish(named, strict), nil
}

// report is what is known of the tests so far.
type report struct {
	out, log io.Writer
	logFile  string // its name; "" if there is none
	now      func() time.Time

	begun    time.Time
	lastNews time.Time
	output   map[test][]string  // of tests that run, and of packages
	since    map[test]time.Time // when those that run have begun, or gone on after they had waited
	waiting  map[test]bool      // parallel tests, of those that run, for which there was no place yet
	outcome  map[string]string  // by name of the test, the worst of its packages
	count    map[string]int     // tests, by outcome
	tests    map[string]int     // tests that have ended, by package
	failed   map[string]bool    // packages
	skipped  map[string]int     // tests, by reason
}

// test is a test, or with an empty name what its package prints beside its tests.
type test struct{ pkg, name string }

func (r *report) follow(in io.Reader, ticks <-chan time.Time) error {
	r.output, r.since, r.waiting = map[test][]string{}, map[test]time.Time{}, map[test]bool{}
	r.outcome, r.count, r.tests = map[string]string{}, map[string]int{}, map[string]int{}
	r.failed, r.skipped = map[string]bool{}, map[string]int{}
	r.lastNews = r.now()
	lines := make(chan string)
	ended := make(chan error, 1)
	go func() {
		defer close(lines)
		scanner := bufio.NewScanner(in)
		scanner.Buffer(nil, longestLine)
		for scanner.Scan() {
			lines <- scanner.Text()
		}
		ended <- scanner.Err()
	}()
	for {
		select {
		case line, more := <-lines:
			if !more {
				return <-ended
			}
			var e event
			if err := json.Unmarshal([]byte(line), &e); err != nil || e.Action == "" {
				r.say("%s", line) // of the go command itself
				continue
			}
			r.take(e)
		case <-ticks:
			r.sayWhatRuns()
		}
	}
}

func (r *report) say(format string, args ...any) {
	r.lastNews = r.now()
	for _, to := range []io.Writer{r.out, r.log} {
		fmt.Fprintln(to, strings.TrimSuffix(fmt.Sprintf(format, args...), "\n"))
	}
}

func (r *report) take(e event) {
	id := test{e.Package, e.Test}
	switch e.Action {
	case "run", "cont":
		r.since[id] = r.now()
		delete(r.waiting, id)
	case "pause":
		r.waiting[id] = true
	case "output":
		r.output[id] = append(r.output[id], e.Output)
	case "build-output":
		id.pkg, _, _ = strings.Cut(e.ImportPath, " ")
		id.pkg = strings.TrimSuffix(id.pkg, "_test")
		r.output[id] = append(r.output[id], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e)
		} else {
			r.endTest(id, e)
		}
	}
}

func (r *report) endTest(id test, e event) {
	output := r.output[id]
	delete(r.output, id)
	delete(r.since, id)
	r.count[e.Action]++
	r.tests[id.pkg]++
	r.outcome[id.name] = worse(r.outcome[id.name], e.Action)
	fmt.Fprintf(r.log, "=== %s %s: %s (%.2f s)\n%s", short(id.pkg), id.name, e.Action, e.Elapsed, strings.Join(output, ""))
	switch e.Action {
	case "fail":
		r.lastNews = r.now()
		fmt.Fprintf(r.out, "FAIL %s %s (%.1f s)\n%s", short(id.pkg), id.name, e.Elapsed, inShort(output))
	case "skip":
		r.skipped[reason(output)]++
	}
}

func (r *report) endPackage(e event) {
	r.endRunning(e.Package)
	id := test{pkg: e.Package}
	output := r.output[id]
	delete(r.output, id)
	fmt.Fprintf(r.log, "=== %s: %s\n%s", short(e.Package), e.Action, strings.Join(output, ""))
	switch {
	case e.Action == "fail":
		r.failed[e.Package] = true
		fmt.Fprint(r.out, lastLines(output, linesOfFailure))
		r.say("FAIL %-40s %4d tests %7.1f s", short(e.Package), r.tests[e.Package], e.Elapsed)
	case r.tests[e.Package] > 0:
		r.say("ok   %-40s %4d tests %7.1f s", short(e.Package), r.tests[e.Package], e.Elapsed)
	}
}

// endRunning tells of the tests that never ended: their package crashed, or ran into its time limit, or
// the go command itself has ended early. Go prints the stacks with one of them, or with the package.
func (r *report) endRunning(pkg string) {
	running := r.running(pkg)
	var printed []string
	for _, id := range append(running, test{pkg: pkg}) {
		printed = append(printed, r.output[id]...)
	}
	dump := strings.Join(printed, "")
	for _, id := range running {
		output := r.output[id]
		fmt.Fprintf(r.log, "=== %s %s: has not ended\n%s", short(id.pkg), id.name, strings.Join(output, ""))
		if before, _, dumped := strings.Cut(strings.Join(output, ""), "\ngoroutine "); dumped {
			output = []string{before + "\n"}
		}
		if r.waiting[id] {
			r.say("FAIL %s %s was still waiting for its turn\n%s", short(id.pkg), id.name, inShort(output))
		} else {
			r.say("FAIL %s %s has not ended\n%s%s", short(id.pkg), id.name, inShort(output), stacks(dump, id.name))
		}
		delete(r.output, id)
		delete(r.since, id)
		delete(r.waiting, id)
		r.count["fail"]++
		r.outcome[id.name] = "fail"
	}
}

// stacks are those of the goroutines that a test is in, out of those of a whole program: first the
// test's own, then those that it has started. A test within a test is among those of the outer one.
func stacks(dump, name string) string {
	if strings.Contains(name, "/") {
		return ""
	}
	var own, others string
	for _, stack := range strings.Split(dump, "\n\n") {
		if !strings.HasPrefix(stack, "goroutine ") || !strings.Contains(stack, "."+name+"(") && !strings.Contains(stack, "."+name+".") {
			continue
		}
		if strings.Contains(stack, "\ntesting.tRunner(") {
			own += stack + "\n"
		} else {
			others += stack + "\n"
		}
	}
	return firstLines(own+others, linesOfFailure)
}

// running lists the tests of a package that have begun and not ended, all packages' if it
// is empty, those that run longest first.
func (r *report) running(pkg string) []test {
	var all []test
	for id := range r.since {
		if pkg == "" || id.pkg == pkg {
			all = append(all, id)
		}
	}
	slices.SortFunc(all, func(a, b test) int {
		if d := r.since[a].Compare(r.since[b]); d != 0 {
			return d
		}
		return strings.Compare(a.name, b.name)
	})
	return all
}

// sayWhatRuns names the tests that run, if nothing was told for a while.
func (r *report) sayWhatRuns() {
	if r.now().Sub(r.lastNews) < silence {
		return
	}
	var running []string
	if len(r.since) == 0 {
		running = []string{"the compiler"}
	}
	for _, id := range r.running("") {
		if !strings.Contains(id.name, "/") && !r.waiting[id] {
			running = append(running, fmt.Sprintf("%s %s (%.0f s)", short(id.pkg), id.name, r.now().Sub(r.since[id]).Seconds()))
		}
	}
	const shown = 4
	more := ""
	if n := len(running) - shown; n > 0 {
		running, more = running[:shown], fmt.Sprintf(" and %d more", n)
	}
	r.say("     %d passed so far; running: %s%s", r.count["pass"], strings.Join(running, ", "), more)
}

// finish prints the sum, and returns whether everything passed, the named tests among it.
func (r *report) finish(named []string, strict bool) bool {
	r.endRunning("")
	good := r.count["fail"] == 0 && len(r.failed) == 0
	for _, why := range slices.Sorted(maps.Keys(r.skipped)) {
		r.say("skipped, %d tests: %s", r.skipped[why], why)
	}
	for _, name := range named {
		switch r.outcome[name] {
		case "pass":
		case "skip":
			r.say("docs/security-claims.md: %s was skipped", name)
			good = good && !strict
		case "":
			r.say("docs/security-claims.md: %s did not run", name)
			good = false
		default:
			good = false
		}
	}
	if r.logFile != "" {
		r.say("everything they have printed: %s", r.logFile)
	}
	r.say("%d passed, %d failed, %d skipped, in %v", r.count["pass"], r.count["fail"], r.count["skip"],
		r.now().Sub(r.begun).Round(time.Second))
	return good
}

// inShort is what a failed test printed: of each message its first and last lines.
func inShort(output []string) string {
	var kept, message []string
	end := func() {
		if n := len(message) - 2*linesOfMessage; n > 1 {
			kept = append(kept, message[:linesOfMessage]...)
			kept = append(kept, fmt.Sprintf("        (%d more lines in the log)\n", n))
			message = message[len(message)-linesOfMessage:]
		}
		kept, message = append(kept, message...), nil
	}
	for _, line := range strings.SplitAfter(strings.Join(output, ""), "\n") {
		// A message begins with its place; what follows of it is indented further.
		if !strings.HasPrefix(line, "        ") {
			end()
		}
		if trimmed := strings.TrimSpace(line); trimmed != "" && !strings.HasPrefix(trimmed, "=== ") {
			message = append(message, line)
		}
	}
	end()
	return lastLines(kept, linesOfFailure)
}

// lastLines is the end of what was printed.
func lastLines(output []string, n int) string {
	lines := strings.SplitAfter(strings.Join(output, ""), "\n")
	lines = slices.DeleteFunc(lines, func(line string) bool { return line == "" || line == "PASS\n" || line == "FAIL\n" })
	if len(lines) > n {
		lines = append([]string{fmt.Sprintf("    (%d lines before these in the log)\n", len(lines)-n)}, lines[len(lines)-n:]...)
	}
	text := strings.Join(lines, "")
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text
}

// firstLines is the beginning of what was printed.
func firstLines(text string, n int) string {
	lines := strings.SplitAfter(text, "\n")
	if len(lines) <= n+1 {
		return text
	}
	return strings.Join(lines[:n], "") + fmt.Sprintf("    (%d lines after these in the log)\n", len(lines)-1-n)
}

// reason is the text with which a test was skipped.
func reason(output []string) string {
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		if _, after, found := strings.Cut(line, ".go:"); found {
			if _, text, found := strings.Cut(after, ": "); found {
				return text
			}
		}
		return line
	}
	return "no reason was given"
}

func short(pkg string) string { return strings.TrimPrefix(pkg, module) }

func worse(a, b string) string {
	rank := map[string]int{"": 0, "pass": 1, "skip": 2, "fail": 3}
	if rank[a] > rank[b] {
		return a
	}
	return b
}
