package words

import (
	"os"
	"regexp"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/client"
)

// Package owner has a table of deeds. Each that describes its change itself does it in German too; a
// fix is described by its finding.
func TestEachDeedIsSaidInGerman(t *testing.T) {
	source, err := os.ReadFile("../owner/deeds.go")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`(?m)^\t[A-Z]\w+:\s+\{"([a-z-]+)", (nil|func|service)`).FindAllSubmatch(source, -1)
	if len(rows) == 0 {
		t.Fatal("there are no deeds")
	}
	for _, row := range rows {
		if name := string(row[1]); string(row[2]) != "nil" && name != "fix" && germanDeeds[name].will == "" {
			t.Errorf("%s has no German sentence", name)
		}
	}
}

func TestADeedIsSaidInTheLanguageOrMarkedAsEnglish(t *testing.T) {
	ban := client.PostureChange{Field: "ban", Text: "The ban of 192.0.2.7 will be lifted."}
	for want, got := range map[Text]Text{
		{"Die Sperre von 192.0.2.7 wird aufgehoben.", "de"}: German.DeedChange(ban, "lift-ban", "192.0.2.7", ""),
		{ban.Text, "en"}: English.DeedChange(ban, "lift-ban", "192.0.2.7", ""),
		{"Die App „{subject}“ wird ausgeschlossen.", "de"}: German.DeedChange(
			client.PostureChange{Kind: "app.cut", Args: []any{"{subject}"}}.Said(), "revoke", "x", ""),
		{"It is well.", "en"}:                    German.DeedResult("It is well.", "odd", "", ""),
		{"Die App hat ihren neuen Namen.", "de"}: German.DeedResult("The App has its new name.", "rename-app", "x", "y"),
	} {
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}
