package words

import (
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/client"
)

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
