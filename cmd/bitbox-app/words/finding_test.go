package words

import (
	"os"
	"regexp"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// The audit's ids are an API, and its table declares each.
func TestEachFindingIsSaidInGerman(t *testing.T) {
	source, err := os.ReadFile("../../../internal/helper/audit/kinds.go")
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{"unchecked": true}
	for _, found := range regexp.MustCompile(`(?m)^\tid\w+\s+= "([a-z0-9-]+)"`).FindAllSubmatch(source, -1) {
		ids[string(found[1])] = true
	}
	for id := range ids {
		if germanFindings[id].title == "" || germanFindings[id].why == "" {
			t.Errorf("%s has no German words", id)
		}
	}
	for id := range germanFindings {
		if !ids[id] {
			t.Errorf("the audit has no %s", id)
		}
	}
}

func TestAFindingOfAnUnknownIdIsSaidAsTheBaseDoes(t *testing.T) {
	f := &basev1.Finding{Id: "new", Title: "New", Why: "Because.", Fix: "Fix it."}
	if got, want := German.Finding(f), (Finding{Text{"New", "en"}, Text{"Because.", "en"}, Text{"Fix it.", "en"}}); got != want {
		t.Errorf("said %+v", got)
	}
	f.Id = "password"
	if got := German.Finding(f); got.Title != (Text{"Ein Benutzer hat ein Passwort", "de"}) {
		t.Errorf("said %+v", got)
	}
	if got := English.Finding(f); got.Title != (Text{"New", "en"}) {
		t.Errorf("said %+v", got)
	}
	f.Id = "unchecked-disks"
	if got := German.Finding(f); got.Title != (Text{"Eine Prüfung ließ sich nicht ausführen (disks)", "de"}) {
		t.Errorf("said %+v", got)
	}
}
