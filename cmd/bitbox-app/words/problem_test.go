package words

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/client"
)

// Each kind of error that the client declares has a German sentence.
func TestEachKindOfErrorIsSaidInGerman(t *testing.T) {
	read := func(pattern string) string {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		var all []byte
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, text...)
		}
		return string(all)
	}
	german := map[string]bool{}
	for _, found := range regexp.MustCompile(`\{client\.(Err\w+), "`).FindAllStringSubmatch(read("german.go"), -1) {
		german[found[1]] = true
	}
	kinds := regexp.MustCompile(`(?m)^(?:var|\t)\s*(Err\w+)\s+= errors\.New`).FindAllStringSubmatch(read("../../../client/*.go"), -1)
	if len(kinds) == 0 {
		t.Fatal("the client declares no kind of error")
	}
	for _, kind := range kinds {
		if !german[kind[1]] {
			t.Errorf("client.%s has no German sentence", kind[1])
		}
	}
}

// commandsOnly are files of the client whose errors no page can show.
var commandsOnly = []string{"claim.go"}

// formats are those of the errors that the files of a package make: the format of a call of fail or Unusable,
// the text of an error that has no format, and a constant that is one.
func formats(t *testing.T, folder string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v", folder, err)
	}
	found := map[string]string{}
	set := token.NewFileSet()
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || slices.Contains(commandsOnly, filepath.Base(name)) {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		keep := func(e ast.Expr) {
			if text, is := literalText(e); is {
				found[text] = set.Position(e.Pos()).String()
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				switch called := fmt.Sprint(n.Fun); {
				case called == "fail":
					keep(n.Args[2])
				case strings.HasSuffix(called, "Unusable"), strings.HasSuffix(called, "Unusable}"):
					keep(n.Args[0])
				}
			case *ast.KeyValueExpr:
				if fmt.Sprint(n.Key) == "Text" && errorText(n.Value) {
					keep(n.Value)
				}
			}
			return true
		})
	}
	return found
}

// errorText tells whether a text is that of an error, which begins with a small letter and has no full stop.
func errorText(e ast.Expr) bool {
	text, is := literalText(e)
	return is && text != "" && strings.ToUpper(text[:1]) != text[:1] && !strings.HasSuffix(text, ".")
}

func literalText(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil && e.Kind == token.STRING
	case *ast.BinaryExpr:
		left, first := literalText(e.X)
		right, second := literalText(e.Y)
		return left + right, first && second
	}
	return "", false
}

// Each error of the client and of the App that a page may show has a German sentence. A bare
// "%v" is said by its kind.
func TestEachErrorIsSaidInGerman(t *testing.T) {
	all := map[string]string{"the App %q was paired as %q; so it is not certain which App is meant, and nothing was done": "meant"}
	for _, folder := range []string{"../../../client", "../owner", "../window"} {
		maps.Copy(all, formats(t, folder))
	}
	if len(all) < 100 {
		t.Fatalf("found %d errors only", len(all))
	}
	for format, where := range all {
		sentence := germanErrors[format]
		if sentence == "" && format != "%v" {
			t.Errorf("%s: no German sentence for %q", where, format)
			continue
		}
		for _, place := range regexp.MustCompile(`%\[(\d)\]s`).FindAllStringSubmatch(sentence, -1) {
			if at, _ := strconv.Atoi(place[1]); at > len(regexp.MustCompile(`%[a-z]`).FindAllString(format, -1)) {
				t.Errorf("%q has no argument %d, which %q needs", format, at, sentence)
			}
		}
	}
	for format := range germanErrors {
		if all[format] == "" {
			t.Errorf("German has a sentence for %q, which nothing says", format)
		}
	}
}

func TestAProblemIsSaidInTheLanguageOrMarkedAsEnglish(t *testing.T) {
	denied := &client.Error{Kind: client.ErrDenied, Text: "only an owner may do that"}
	for _, test := range []struct {
		language Language
		err      error
		want     Text
	}{
		{German, denied, Text{"Die Rolle dieser App erlaubt das nicht.", "de"}},
		{German, &client.Error{Kind: client.ErrNoChange, Text: `"ssh" is not open`, Format: "%q is not open", Args: []any{"ssh"}},
			Text{"„ssh“ ist nicht offen.", "de"}},
		{German, fmt.Errorf("the deed: %w", &client.Error{Kind: client.ErrNotApproved, Text: "nothing was changed"}),
			Text{"Es wurde nichts geändert.", "de"}},
		{English, denied, Text{"only an owner may do that", "en"}},
		{German, context.Canceled, Text{"Abgebrochen.", "de"}},
		{German, errors.New("odd"), Text{"odd", "en"}},
		{German, nil, Text{}},
	} {
		if got := test.language.Problem(test.err); got != test.want {
			t.Errorf("%s says %+v of %v", test.language.Name, got, test.err)
		}
	}
}
