package words

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
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
	for _, found := range regexp.MustCompile(`\{client\.(Err\w+), "`).FindAllStringSubmatch(read("problem.go"), -1) {
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

func TestAProblemIsSaidInTheLanguageOrMarkedAsEnglish(t *testing.T) {
	denied := &client.Error{Kind: client.ErrDenied, Text: "only an owner may do that"}
	for _, test := range []struct {
		language Language
		err      error
		want     Text
	}{
		{German, denied, Text{"Die Rolle dieser App erlaubt das nicht.", "de"}},
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
