package words

import (
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/client"
)

// DeedChange says the change that a deed makes, before it is made. deed is the name of its kind, as in
// package owner, subject and text are those of the deed. A change of a posture has a kind of its own;
// a deed without a sentence in the language has only its English.
func (l Language) DeedChange(c client.PostureChange, deed, subject, text string) Text {
	if _, known := l.sentences[changeKey(c.Kind)]; known {
		return Text{l.WillChange(c), l.Tag}
	}
	if d := l.deeds[deed]; d.will != "" {
		return Text{filled(d.will, subject, text), l.Tag}
	}
	if f := l.findings[subject]; deed == "fix" && f.fix != "" {
		return Text{f.fix, l.Tag}
	}
	return Text{c.Text, English.Tag}
}

// DeedResult says what a deed has done; result is its English.
func (l Language) DeedResult(result, deed, subject, text string) Text {
	if d := l.deeds[deed]; d.done != "" && result != "" {
		return Text{filled(d.done, subject, text), l.Tag}
	}
	return Text{result, English.Tag}
}

// deed has the sentences of a kind of deed: before and after it was done. {subject} and {text} are
// those of the deed.
type deed struct{ will, done string }

func filled(sentence, subject, text string) string {
	return strings.NewReplacer("{subject}", subject, "{text}", text).Replace(sentence)
}

// germanDeeds are those of package owner, by name.
var germanDeeds = map[string]deed{
	"open-window": {"Drei Minuten lang nimmt die Base Anfragen anderer Apps an. Keine App wird eingelassen, bevor jemand an der Base einen Code " +
		"verglichen hat.", "Das Kopplungsfenster ist offen."},
	"close-window": {"Das Kopplungsfenster wird geschlossen, und eine laufende Kopplung endet.", "Das Kopplungsfenster ist geschlossen."},
	"end-lease":    {"", "Geschlossen. Die Base hat signiert, dass das in Kraft ist."},
	"confirm-try":  {"", "Die Änderung ist bestätigt und bleibt in Kraft."},
	"lift-ban":     {"Die Sperre von {subject} wird aufgehoben.", "{subject} ist nicht mehr gesperrt."},
	"fix":          {"", "Behoben."},
	"lockdown": {"Die Base wird abgeriegelt: SSH aus, zusätzliche Schnittstellen geschlossen, kein Koppeln aus dem Netz, " +
		"alle anderen Sitzungen enden.", "Die Base ist abgeriegelt und hat das signiert."},
	"unlock":          {"", "Die Abriegelung ist aufgehoben. Die Base hat signiert, dass das in Kraft ist."},
	"expose":          {"", "Erledigt. Die Base hat signiert, dass das in Kraft ist."},
	"enable-ssh":      {"", "Erledigt. Die Base hat signiert, dass das in Kraft ist."},
	"add-ssh-keys":    {"", "Erledigt. Die Base hat signiert, dass das in Kraft ist."},
	"remove-ssh-key":  {"", "Erledigt. Die Base hat signiert, dass das in Kraft ist."},
	"set-role":        {"", "Die Rolle ist geändert. Die Base hat signiert, dass das in Kraft ist."},
	"revoke":          {"", "Die App ist endgültig ausgeschlossen."},
	"rename-app":      {"Die App wird in „{text}“ umbenannt.", "Die App hat ihren neuen Namen."},
	"start-service":   {"Der Dienst {subject} wird gestartet.", ""},
	"stop-service":    {"Der Dienst {subject} wird angehalten, bis zum nächsten Start der Base oder bis ihn jemand startet.", ""},
	"restart-service": {"Der Dienst {subject} wird angehalten und wieder gestartet.", ""},
	"enable-service":  {"Der Dienst {subject} wird gestartet, jetzt und bei jedem Start der Base.", ""},
	"disable-service": {"Der Dienst {subject} wird angehalten und beim Start der Base nicht mehr gestartet.", ""},
	"previous-version": {"Die Base startet mit ihrer vorigen Version neu. Apps sind getrennt, bis sie wieder da ist.",
		"Die Base läuft mit ihrer vorigen Version und ist gesund."},
	"rename":         {"", "Erledigt. Die Base hat signiert, dass das in Kraft ist."},
	"set-time-zone":  {"Die Zeitzone der Base wird {text}.", "Die Base hat ihre neue Zeitzone."},
	"reboot":         {"Die Maschine der Base startet neu. Apps sind getrennt, bis sie wieder da ist, und SSH ist dann aus.", "Die Base antwortet wieder."},
	"power-off":      {"Die Maschine der Base schaltet sich aus. Nur jemand an der Base kann sie wieder einschalten.", "Die Base schaltet sich aus."},
	"node-online":    {"", "Erledigt. Die Base hat signiert, dass das in Kraft ist."},
	"node-offline":   {"", "Erledigt. Die Base hat signiert, dass das in Kraft ist."},
	"debian-updates": {"Die Base installiert die ausstehenden Updates von Debian.", "Die Updates von Debian sind installiert."},
	"forget":         {"Diese App vergisst die Base. Die Base behält diese App in ihrer Liste, bis ein Besitzer sie dort ausschließt.", ""},
}
