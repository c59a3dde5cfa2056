package words

// german has the sentences of the window in German, by their keys: the screen, a dot, the sentence. Places
// for arguments are numbered, as %[1]s, because languages order them in their own ways.
var german = map[string]string{
	// frame
	"frame.title": "Die Base",

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
