package words

// english has the sentences of the window in English, by their keys: the screen, a dot, the sentence. Places
// for arguments are numbered, as %[1]s, because languages order them in their own ways.
var english = map[string]string{
	// frame
	"frame.title": "The Base",

	// door
	"door.code":      "The App cannot find out whose browser this is. Start bitbox-app window --no-browser in a terminal, and type the code that it shows.",
	"door.failed":    "The App could not do that. Its terminal says why.",
	"door.form":      "The form cannot be used: something is missing in it, or it is too long.",
	"door.full":      "Too many pages of the App are open. Close one of them.",
	"door.gone":      "The App has ended. To open its window again, start bitbox-app window or click its icon.",
	"door.host":      "This is not the address of the App's window. Start bitbox-app window, or click its icon.",
	"door.idle":      "This page is locked, because nobody has used it for a while. Start bitbox-app window or click its icon, and it comes back with all that you have typed.",
	"door.late":      "The App waited a minute for this browser, and no longer. Start bitbox-app window again, or click its icon.",
	"door.nocode":    "No code is good at the moment. Start bitbox-app window --no-browser for a new one.",
	"door.nowhere":   "There is no such page.",
	"door.site":      "Only the App and its own pages lead here. If a browser is too old to say where a request comes from, use a newer one.",
	"door.stranger":  "This browser has not come in through the App, or it was long ago. Start bitbox-app window, or click its icon.",
	"door.unknown":   "The App does not know this browser. Start bitbox-app window again, or click its icon.",
	"door.used":      "All pages are locked: somebody has come in twice with the same ticket, so another program may have read it. Start bitbox-app window again, or click its icon.",
	"door.wrongcode": "This is not the code in the terminal. After five wrong codes it is no longer good.",

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
