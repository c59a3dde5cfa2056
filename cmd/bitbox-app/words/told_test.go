package words

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// tellers are where the source of the Base writes texts for people: functions, variables and constants.
var tellers = map[string][]string{
	"internal/helper/units":         {"results", "Reason"},
	"internal/helper/monitor":       {"failing"},
	"internal/node":                 {"NewWatcher", "fail"},
	"internal/node/jsonrpc":         {"Trouble", "OtherNetwork"},
	"internal/node/clock":           {"Reason"},
	"internal/nodeclient":           {"ErrNone", "ErrAway"},
	"cmd/bitbox-node":               {"fullDisk"},
	"internal/electrum":             {"follow"},
	"internal/electrum/source":      {"ErrPruned", "ErrNetwork"},
	"internal/helper/chaindisk":     {"rules", "failing", "Failing", "unread", "uses", "errMissing", "mount", "check", "find"},
	"internal/helper/update":        {"judge", "back", "returned", "trial", "goBack", "confirmed"},
	"internal/helper/update/debian": {"Look"},
	"internal/helper/audit":         {"checkUpdates"},
	"internal/protocol/posture":     {"ended", "actorName", "documentEvent"},
}

// apart are texts of these places that no owner reads as they are.
var apart = map[string]string{
	"in use": "the name of a rule", "too small": "the name of a rule", "gone back": "the name of a step", "%s: %s": "two texts",
	"systemd did not reload its units": "in the log", "the node was asked": "in the log", "e2fsck ended with %s": "within another text",
	"look at the disk of the chain: %s": "an error of the system", "read %s: %s": "an error of the system",
	"a disk is called %s": "in an error", "a part of a disk is missing": "in an error", "too much lies on one disk": "in an error",
	"%s is %s": "of a unit, with .service", "%s has ended %s times": "of a unit, with .service",
}

// textOf is the format of a text with %s for each argument; false: it is none that a person would read.
func textOf(e ast.Expr) (string, bool) {
	if text, is := literalText(e); is {
		return text, true
	}
	switch e := e.(type) {
	case *ast.BinaryExpr:
		left, first := textOf(e.X)
		right, second := textOf(e.Y)
		if !first {
			left = "%s"
		}
		if !second {
			right = "%s"
		}
		return left + right, e.Op == token.ADD && (first || second)
	}
	return "", false
}

var verb = regexp.MustCompile(`%[dsvqw]`)

// toldIn are the formats of the texts in the source of a package.
func toldIn(t *testing.T, folder string, names []string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../../..", folder, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v", folder, err)
	}
	found := map[string]string{}
	set := token.NewFileSet()
	keep := func(n ast.Node) {
		ast.Inspect(n, func(n ast.Node) bool {
			added := ""
			if a, is := n.(*ast.AssignStmt); is && a.Tok == token.ADD_ASSIGN {
				n, added = a.Rhs[0], "%s"
			}
			e, is := n.(ast.Expr)
			if !is {
				return true
			}
			if text, is := textOf(e); is {
				text = added + text
				if text = strings.TrimPrefix(verb.ReplaceAllString(text, "%s"), "%s: "); strings.Contains(text, " ") {
					found[text] = set.Position(e.Pos()).String()
				}
				return false
			}
			return true
		})
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if slices.Contains(names, d.Name.Name) {
					keep(d.Body)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if v, is := spec.(*ast.ValueSpec); is && slices.Contains(names, v.Names[0].Name) {
						for _, value := range v.Values {
							keep(value)
						}
					}
				}
			}
		}
	}
	return found
}

// German has a sentence for each text that the Base writes for people, and for no other.
func TestEachTextOfABaseIsSaidInGerman(t *testing.T) {
	told, known := map[string]string{}, map[string]bool{}
	for folder, names := range tellers {
		maps.Copy(told, toldIn(t, folder, names))
	}
	if len(told) < 70 {
		t.Fatalf("found %d texts only", len(told))
	}
	for _, text := range germanTexts {
		known[strings.Join(text.around, "%s")] = true
	}
	for _, text := range slices.Sorted(maps.Keys(told)) {
		if !known[text] && apart[text] == "" {
			t.Errorf("%s: no German sentence for %q", told[text], text)
		}
	}
	source := sourceOfTheBase(t)
	for _, text := range germanTexts {
		for _, part := range text.around {
			for part := range strings.SplitSeq(strings.TrimPrefix(part, ".service"), ": ") {
				if part = strings.Trim(part, " :;,\"'"); !strings.Contains(source, part) {
					t.Errorf("German has a sentence for %q, and the Base never says %q", strings.Join(text.around, "%s"), part)
				}
			}
		}
	}
}

// sourceOfTheBase is all of it.
func sourceOfTheBase(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, folder := range []string{"../../../internal", "../../bitbox-node"} {
		err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			all.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}

// Each format of a text is said with names in its places, and no other format takes it for its own.
func TestATextOfABaseIsSaidByItsOwnFormat(t *testing.T) {
	for _, text := range germanTexts {
		if !strings.ContainsFunc(places.Replace(text.sentence), unicode.IsLetter) {
			continue // a list
		}
		names := []any{"Aa", "Bb", "Cc"}[:len(text.around)-1]
		told := fmt.Sprintf(strings.Join(text.around, "%s"), names...)
		if got, want := German.ByBase(told), (Text{filled(text.sentence, names), "de"}); got != want {
			t.Errorf("%q is said %+v, not %+v", told, got, want)
		}
	}
}

func TestATextOfABaseIsSaidWholeOrNotAtAll(t *testing.T) {
	for told, want := range map[string]Text{
		"it has failed: it ended with status 3": {"er ist gescheitert: er endete mit dem Status 3", "de"},
		"the Base was not well with it: nginx.service is failed; the posture is not in force yet": {
			"der Base ging es damit nicht gut: nginx.service ist „failed“; die Einstellungen sind noch nicht in Kraft", "de"},
		"partition 1: ext4 \"the Base\", partition 2: nothing": {"Partition 1: ext4 „the Base“, Partition 2: nichts", "de"},
		"it has failed: the moon is full":                      {"it has failed: the moon is full", "en"},
		"the moon is full":                                     {"the moon is full", "en"},
		"Anna, Bert":                                           {"Anna, Bert", "en"},
		"":                                                     {"", "en"},
	} {
		if got := German.ByBase(told); got != want {
			t.Errorf("%q is said %+v, not %+v", told, got, want)
		}
	}
	if got := German.Cited("the moon is full"); got != "„the moon is full“" {
		t.Errorf("cited as %s", got)
	}
}

// A Base that lies sends a text with a great many parts.
func TestATextOfABaseIsLookedUpWithinBounds(t *testing.T) {
	for _, part := range []string{"a; ", "a, b; ", "a b, ", "it has failed: ", "partition 1: "} {
		lookups := 0
		text := strings.Repeat(part, longestTold/len(part)-1) + "the moon is full"
		if _, known := German.knowsText(text, &lookups); known || lookups > mostLookups {
			t.Errorf("%q: %d lookups, known: %t", part, lookups, known)
		}
		if _, known := German.knowsText(strings.Repeat(text, 3), &lookups); known {
			t.Errorf("%q is known at any length", part)
		}
	}
}
