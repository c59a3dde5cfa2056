package words

// english has the sentences of the window in English, by their keys: the screen, a dot, the sentence. Places
// for arguments are numbered, as %[1]s, because languages order them in their own ways.
var english = map[string]string{
	// frame
	"frame.title": "The Base",

	// pair
	"pair.title": "Pair with a Base",

	// overview
	"overview.title": "Overview",

	// deed
	"deed.title": "Change",

	// security
	"security.title": "Security",

	// node
	"node.title": "Node",

	// wallet
	"wallet.title": "Connect a wallet",

	// services
	"services.title": "Services",

	// people
	"people.title": "People",

	// updates
	"updates.title": "Updates",

	// log
	"log.title": "Log of changes",

	// machine
	"machine.title": "Machine",

	// settings
	"settings.title": "Settings",

	// changes
	"changes.title": "Changes",

	// events
	"events.title": "Events",

	// errors
	"errors.title": "This did not work",
}
