package words

// english has the sentences of the window in English, by their keys: the screen, a dot, the sentence. Places
// for arguments are numbered, as %[1]s, because languages order them in their own ways.
var english = map[string]string{
	// frame
	"frame.title":      "The Base",
	"frame.skip":       "Skip to the content",
	"frame.pages":      "Pages of this Base",
	"frame.bases":      "Bases",
	"frame.all":        "All Bases",
	"frame.pair":       "Pair with a Base",
	"frame.lockdown":   "Lock down",
	"frame.lockeddown": "Locked down",
	"frame.good":       "well",
	"frame.warn":       "needs a look",
	"frame.bad":        "not well",
	"frame.badge":      "to look at",
	"frame.until":      "until %[1]s",
	"frame.gone":       "The App has ended. Start it again to go on: bitbox-app window.",
	"frame.foreign":    "This page can no longer be trusted: another program answers in the App's place. Close it.",
	"frame.changed":    "This page has changed at its place. Reload it when you have saved what you typed.",
	"frame.stale":      "Out of date since %[1]s. The App does not answer.",
	"frame.idle":       "This page locks in %[1]s seconds. Press a key or move the pointer to stay.",
	"frame.left":       "%[1]s: %[2]s seconds left",
	"frame.ended":      "%[1]s: over",
	"frame.early":      "Read the question first, then answer.",
	"frame.copied":     "Copied",
	"frame.beside":     "Nothing was done with the file. Drop it on a field for files.",

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
	"overview.title":                "Overview",
	"overview.nav":                  "Overview",
	"overview.well.good":            "All is well.",
	"overview.well.good.more":       "The Base answers, runs what it should, and is as closed as it should be.",
	"overview.well.ended":           "This App can no longer reach the Base.",
	"overview.well.ended.more":      "Pair again if this Base is still yours.",
	"overview.well.lie":             "The Base's report about itself does not verify.",
	"overview.well.lie.more":        "Somebody may have changed its software. Go to the Base and look at its screen.",
	"overview.well.lost":            "The Base does not answer.",
	"overview.well.lost.more":       "It may be off, or this computer may be on another network.",
	"overview.well.connecting":      "Connecting to the Base …",
	"overview.well.connecting.more": "This takes a few seconds.",
	"overview.well.lockdown":        "The Base is locked down.",
	"overview.well.lockdown.more":   "Only the Apps that are paired reach it. The page Security lifts the lockdown.",
	"overview.well.critical":        "The Base is not as closed as it should be: %[1]s",
	"overview.well.critical.more":   "The page Security says what to do.",
	"overview.well.failed":          "The service %[1]s has failed.",
	"overview.well.failed.more":     "The page Services has its log, and can start it again.",
	"overview.well.trying":          "A change waits for its confirmation.",
	"overview.well.trying.more":     "Without one the Base undoes it.",
	"overview.well.disk":            "The disk is nearly full.",
	"overview.well.disk.more":       "Hardly anything is free any more.",
	"overview.well.node":            "The Bitcoin node does not answer.",
	"overview.well.node.more":       "The page Node says why.",
	"overview.well.warning":         "One thing needs a look: %[1]s",
	"overview.well.warning.more":    "The page Security says what to do.",
	"overview.well.doubted":         "The Base may have stopped answering.",
	"overview.well.doubted.more":    "It is being asked.",
	"overview.again":                "Next try:",
	"overview.try.title":            "A change is on trial",
	"overview.try.text":             "Another App began it. The Base undoes it when the time is over, unless an owner keeps it.",
	"overview.try.ends":             "The change on trial",
	"overview.try.keep":             "Keep it …",
	"overview.open.title":           "What is open",
	"overview.open.none":            "Nothing but the channel to your Apps.",
	"overview.open.unknown":         "This Base does not manage what is open. It is a developer's.",
	"overview.open.button":          "Close …",
	"overview.open.close":           "Close %[1]s",
	"overview.open.keys.one":        "for %[1]d key",
	"overview.open.keys.many":       "for %[1]d keys",
	"overview.open.port":            "Port %[1]d.",
	"overview.open.everywhere":      "From every network.",
	"overview.open.from":            "From %[1]s.",
	"overview.open.forgood":         "Until somebody closes it.",
	"overview.open.window":          "Pairing",
	"overview.open.window.detail":   "A further App may ask to be paired.",
	"overview.findings.title":       "Audit",
	"overview.findings.running":     "looking",
	"overview.findings.at":          "of %[1]s",
	"overview.findings.none":        "The Base is as closed as it should be.",
	"overview.findings.unknown":     "This Base has no audit for this App.",
	"overview.findings.more":        "And %[1]d more.",
	"overview.findings.link":        "What to do about it",
	"overview.node.title":           "Bitcoin node",
	"overview.node.none":            "This Base has no node, or does not tell of it.",
	"overview.node.missing":         "not installed",
	"overview.node.stopped":         "does not answer",
	"overview.node.starting":        "starts",
	"overview.node.behind":          "catches up",
	"overview.node.current":         "up to date",
	"overview.node.height":          "Block",
	"overview.node.peers":           "Peers",
	"overview.node.done":            "Done",
	"overview.node.progress":        "%[1]s of the chain",
	"overview.health.title":         "Health",
	"overview.health.load":          "Load",
	"overview.health.memory":        "Memory",
	"overview.health.disk":          "Disk",
	"overview.health.temperature":   "Temperature",
	"overview.health.free":          "%[1]s of %[2]s free",
	"overview.health.curve":         "%[1]s, the last day",
	"overview.now.title":            "Now",
	"overview.now.none":             "Nothing has happened since the App looks.",
	"overview.now.times":            "%[1]d times",

	// deed
	"deed.title": "Change",
	"deed.opens": "opens",

	// security
	"security.title":                "Security",
	"security.nav":                  "Security",
	"security.severity.info":        "note",
	"security.severity.warning":     "warning",
	"security.severity.critical":    "critical",
	"security.severity.unspecified": "unknown",

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
	"errors.title":        "This did not work",
	"errors.enter.title":  "Open your Bases",
	"errors.enter.text":   "This page opens by itself. If it does not, type the code that the App shows in its terminal.",
	"errors.enter.code":   "Code from the terminal",
	"errors.enter.hint":   "bitbox-app window --no-browser shows a code. It works for five minutes.",
	"errors.enter.button": "Open",
	"errors.notice.title": "This did not work",
	"errors.notice.back":  "Back to the Bases",
	"errors.locked.title": "Locked",
	"errors.locked.text":  "Nothing of your Bases is on this page. To go on, start the window again:",
	"errors.nowhere":      "There is no such page. The Base or the task may be gone.",
}
