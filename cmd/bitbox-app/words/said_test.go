package words

import (
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
)

func TestASentenceIsSaidInTheLanguageOrMarkedAsEnglish(t *testing.T) {
	ban := Change(client.PostureChange{Field: "ban"}, "deed.lift-ban", "192.0.2.7")
	for _, test := range []struct{ got, want Text }{
		{German.Will(ban), Text{"Die Sperre von 192.0.2.7 wird aufgehoben.", "de"}},
		{English.Will(ban), Text{"The ban of 192.0.2.7 will be lifted.", "en"}},
		{Text{ban.Text, "en"}, English.Will(ban)},
		{German.Will(client.PostureChange{Text: "Odd."}), Text{"Odd.", "en"}},
		{German.Will(client.PostureChange{Field: "finding", Subject: "entry-silent", Text: "Restarts NGINX."}),
			Text{"Startet NGINX neu.", "de"}},
		{German.Said(Saying("done.no-ban", "192.0.2.7")), Text{"192.0.2.7 war nicht mehr gesperrt.", "de"}},
		{German.Said(Plain("odd")), Text{"odd", "de"}},
		{German.Said(ByBase("odd")), Text{"odd", "en"}},
		{German.Said(Saying("done.node-settings.later", ByBase("odd it is"))),
			Text{"Die Einstellungen sind gespeichert. Der Node antwortet damit noch nicht: „odd it is“.", "de"}},
		{German.Said(Said{}), Text{}},
		{English.Said(ApplyStep("validate: nginx.service")), Text{"The Base checks the new settings of nginx", "en"}},
		{German.Said(ApplyStep("polish: the brass")), Text{"polish: the brass", "en"}},
		{German.Said(UpdateStep(&basev1.Update{Phase: basev1.Update_PHASE_CHECKING, Step: "restart the machine with version 1.4.0"})),
			Text{"Prüfung: die Maschine mit Version 1.4.0 neu starten", "de"}},
	} {
		if test.got != test.want {
			t.Errorf("said %+v, not %+v", test.got, test.want)
		}
	}
}
