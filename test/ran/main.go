// Command ran reads the output of `go test -json` from its standard input and
// prints it as `go test` would, then says how many tests passed, failed and
// were skipped, and checks docs/security-claims.md against them: each test that
// the table names must have run and passed.
//
// It ends with 1 when a named test did not run or failed. A named test that was
// skipped is an error in CI (environment variable CI) and as root, and a remark
// elsewhere, since those against the real servers need root.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/test/repository/claims"
)

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

func main() {
	table, err := os.ReadFile("docs/security-claims.md")
	if err != nil {
		fmt.Fprintln(os.Stderr, "ran:", err)
		os.Exit(1)
	}
	strict := os.Getenv("CI") != "" || os.Geteuid() == 0
	if !report(os.Stdin, os.Stdout, claims.Tests(string(table)), strict) {
		os.Exit(1)
	}
}

// report prints what happened and returns whether every named test passed.
// Output of tests that pass is left out, as `go test` does.
func report(in io.Reader, out io.Writer, named []string, strict bool) bool {
	outcome := map[string]string{} // by name of the test, the worst of its packages
	output := map[string][]string{}
	count := map[string]int{}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e.Action == "" {
			fmt.Fprintln(out, lines.Text()) // a build's error, not JSON
			continue
		}
		id := e.Package + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			if e.Test == "" {
				// A package's own last lines: ok, FAIL, a panic.
				if text := strings.TrimSpace(e.Output); text != "PASS" && text != "" {
					fmt.Fprint(out, e.Output)
				}
			} else {
				output[id] = append(output[id], e.Output)
			}
		case "pass", "fail", "skip":
			if e.Test == "" {
				break
			}
			if e.Action != "pass" {
				fmt.Fprint(out, strings.Join(output[id], ""))
			}
			delete(output, id)
			count[e.Action]++
			outcome[e.Test] = worse(outcome[e.Test], e.Action)
		}
	}
	if err := lines.Err(); err != nil {
		fmt.Fprintln(out, "ran: read the tests' output:", err)
		return false
	}
	// A test that never ended: its package crashed.
	for _, id := range sortedKeys(output) {
		fmt.Fprint(out, strings.Join(output[id], ""))
	}

	good := true
	for _, name := range named {
		switch outcome[name] {
		case "pass":
		case "skip":
			fmt.Fprintf(out, "docs/security-claims.md: %s was skipped\n", name)
			good = good && !strict
		case "":
			fmt.Fprintf(out, "docs/security-claims.md: %s did not run\n", name)
			good = false
		default:
			good = false
		}
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", count["pass"], count["fail"], count["skip"])
	return good
}

func worse(a, b string) string {
	rank := map[string]int{"": 0, "pass": 1, "skip": 2, "fail": 3}
	if rank[a] > rank[b] {
		return a
	}
	return b
}

func sortedKeys(m map[string][]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
