package words

// german has the sentences of the window in German, by their keys: the screen, a dot, the sentence. Places
// for arguments are numbered, as %[1]s, because languages order them in their own ways.
var german = map[string]string{
	// frame
	"frame.title": "Die Base",

	// door
	"door.code":      "Die App kann nicht herausfinden, wessen Browser das ist. Starte bitbox-app window --no-browser in einem Terminal und tippe den Code ein, den es zeigt.",
	"door.failed":    "Das konnte die App nicht tun. In ihrem Terminal steht, warum.",
	"door.form":      "Das Formular kann nicht verwendet werden: Etwas fehlt darin, oder es ist zu lang.",
	"door.full":      "Es sind zu viele Seiten der App offen. Schliesse eine davon.",
	"door.gone":      "Die App ist beendet. Starte bitbox-app window oder klicke auf ihr Symbol, um das Fenster wieder zu öffnen.",
	"door.host":      "Das ist nicht die Adresse des Fensters der App. Starte bitbox-app window oder klicke auf ihr Symbol.",
	"door.idle":      "Diese Seite ist gesperrt, weil sie eine Weile niemand benutzt hat. Starte bitbox-app window oder klicke auf ihr Symbol, dann kommt sie zurück, mit allem, was du getippt hast.",
	"door.late":      "Die App hat eine Minute auf diesen Browser gewartet und nicht länger. Starte bitbox-app window noch einmal oder klicke auf ihr Symbol.",
	"door.nocode":    "Zurzeit gilt kein Code. Starte bitbox-app window --no-browser, dann gibt es einen neuen.",
	"door.nowhere":   "Diese Seite gibt es nicht.",
	"door.site":      "Hierher führen nur die App und ihre eigenen Seiten. Ist ein Browser zu alt, um zu sagen, woher eine Anfrage kommt, nimm einen neueren.",
	"door.stranger":  "Dieser Browser ist nicht über die App hereingekommen, oder es ist lange her. Starte bitbox-app window oder klicke auf ihr Symbol.",
	"door.unknown":   "Die App kennt diesen Browser nicht. Starte bitbox-app window noch einmal oder klicke auf ihr Symbol.",
	"door.used":      "Alle Seiten sind gesperrt: Jemand ist zweimal mit demselben Ticket hereingekommen, also hat es vielleicht ein anderes Programm gelesen. Starte bitbox-app window noch einmal oder klicke auf ihr Symbol.",
	"door.wrongcode": "Das ist nicht der Code im Terminal. Nach fünf falschen Codes gilt er nicht mehr.",

	// pair
	"pair.title": "Mit einer Base koppeln",

	// overview
	"overview.title": "Übersicht",

	// deed
	"deed.title": "Änderung",

	// security
	"security.title": "Sicherheit",

	// node
	"node.title": "Knoten",

	// wallet
	"wallet.title": "Wallet verbinden",

	// services
	"services.title": "Dienste",

	// people
	"people.title": "Personen",

	// updates
	"updates.title": "Aktualisierungen",

	// log
	"log.title": "Änderungsprotokoll",

	// machine
	"machine.title": "Gerät",

	// settings
	"settings.title": "Einstellungen",

	// changes
	"changes.title": "Änderungen",

	// events
	"events.title": "Ereignisse",

	// errors
	"errors.title": "Das hat nicht geklappt",
}
