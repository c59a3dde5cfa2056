package repository

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The profile of Lynis leaves out the tests that docs/image.md gives a reason for, and no others.
func TestWhatLynisLeavesOutHasAReason(t *testing.T) {
	profile, err := os.ReadFile("../image/lynis.prf")
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile("../../docs/image.md")
	if err != nil {
		t.Fatal(err)
	}
	skipped := leftOut(string(profile))
	explained := explainedRows(string(document))
	if len(skipped) == 0 || !slices.Equal(skipped, explained) {
		t.Errorf("test/image/lynis.prf leaves out %q, and docs/image.md explains %q", skipped, explained)
	}
	// It finds a test that was left out without a reason.
	if slices.Equal(leftOut(string(profile)+"skip-test=USB-3000\n"), explained) {
		t.Error("a test that has no reason was not found")
	}
}

// leftOut returns the tests that a profile of Lynis skips, sorted.
func leftOut(profile string) (ids []string) {
	for _, line := range regexp.MustCompile(`(?m)^skip-test=(\S+)$`).FindAllStringSubmatch(profile, -1) {
		ids = append(ids, line[1])
	}
	slices.Sort(ids)
	return ids
}

// explainedRows returns the tests that the table in docs/image.md explains, sorted.
func explainedRows(document string) (ids []string) {
	_, table, _ := strings.Cut(document, "| left out |")
	table, _, _ = strings.Cut(table, "\n\n")
	for _, row := range strings.Split(table, "\n") {
		cells := strings.Split(row, "|")
		if len(cells) > 1 {
			ids = append(ids, regexp.MustCompile(`[A-Z]+-\d{4}`).FindAllString(cells[1], -1)...)
		}
	}
	slices.Sort(ids)
	return ids
}
