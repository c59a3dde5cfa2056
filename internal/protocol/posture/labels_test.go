package posture

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

// The protocol's page has each label, as the code has it, and no other.
func TestTheProtocolNamesEachLabel(t *testing.T) {
	find := func(path, pattern string) (found []string) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
			found = append(found, match[1])
		}
		slices.Sort(found)
		return found
	}
	code := find("document.go", `(?m)^\tlabel\w+ += "([^"]+)"`)
	docs := find("../../../docs/protocol.md", "(?m)^\\|[^|]*\\| `(bitbox-base [a-z ]+ v1)` \\|")
	if len(code) == 0 || !slices.Equal(code, docs) {
		t.Errorf("the code has %q\nand docs/protocol.md %q", code, docs)
	}
}
