package repository

import (
	"bytes"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	// codeColumns is how long a line of Go may be, a tab counted as one column.
	codeColumns = 140
	// docColumns is how long a line of a document may be.
	docColumns = 120
)

var (
	generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)
	// longText is a text that stays in one piece, so that a search finds it.
	longText = regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.){80,}\"|`")
	// unbreakable are what Markdown cannot break: a row of a table, a block of code.
	unbreakable = regexp.MustCompile(`^(\||    |\t)`)
)

func TestLinesFitOnAScreen(t *testing.T) {
	walk(t, func(path string, content []byte) {
		extension := filepath.Ext(path)
		code, doc := extension == ".go" && !generated.Match(content), extension == ".md"
		if !code && !doc {
			return
		}
		fenced, raw := false, false
		for n, line := range strings.Split(string(bytes.TrimSpace(content)), "\n") {
			columns := utf8.RuneCountInString(line)
			switch {
			case code:
				if columns > codeColumns && !raw && !longText.MatchString(line) {
					t.Errorf("%s:%d has %d columns", path, n+1, columns)
				}
				raw = raw != (strings.Count(line, "`")%2 == 1)
			case strings.HasPrefix(strings.TrimSpace(line), "```"):
				fenced = !fenced
			case columns > docColumns && !fenced && !unbreakable.MatchString(line):
				t.Errorf("%s:%d has %d columns", path, n+1, columns)
			}
		}
	})
}
