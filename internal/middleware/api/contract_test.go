package api

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// docs/protocol.md lists every method with its least role, for authors of other clients.
func TestTheContractListsEveryMethodWithItsRole(t *testing.T) {
	content, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	listed := map[string]basev1.Role{}
	_, table, _ := strings.Cut(text, "| service | viewer | operator | owner |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 4 || strings.HasPrefix(strings.TrimSpace(cells[0]), "---") {
			continue
		}
		for role, cell := range cells[1:] {
			for name := range strings.SplitSeq(cell, ",") {
				if name = strings.TrimSpace(name); name != "" {
					listed[fmt.Sprintf("bitbox.base.v1.%sService.%s", strings.TrimSpace(cells[0]), name)] = basev1.Role(role + 1)
				}
			}
		}
	}
	var wrong []string
	for name, m := range methods {
		if listed[name] != m.least {
			wrong = append(wrong, fmt.Sprintf("%s: %v in the text, %v in the table of methods", name, listed[name], m.least))
		}
		delete(listed, name)
	}
	for name := range listed {
		wrong = append(wrong, name+" is in the text alone")
	}
	slices.Sort(wrong)
	for _, line := range wrong {
		t.Error(line)
	}
}
