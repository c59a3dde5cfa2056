// Package claims reads the table of docs/security-claims.md.
package claims

import (
	"regexp"
	"slices"
)

var testName = regexp.MustCompile("`(Test[A-Za-z0-9_]+)`")

// Tests returns the name of each test that the table names, once, sorted. A
// test is named by its function, in backquotes.
func Tests(table string) []string {
	var names []string
	for _, match := range testName.FindAllStringSubmatch(table, -1) {
		names = append(names, match[1])
	}
	slices.Sort(names)
	return slices.Compact(names)
}
