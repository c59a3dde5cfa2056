package words

// german has the sentences of the window in German, by their keys: the screen, a dot, the sentence. Places
// for arguments are numbered, as %[1]s, because languages order them in their own ways.
var german = map[string]string{
	// frame
	"frame.title":      "Die Base",
	"frame.skip":       "Zum Inhalt springen",
	"frame.pages":      "Seiten dieser Base",
	"frame.bases":      "Bases",
	"frame.all":        "Alle Bases",
	"frame.pair":       "Mit einer Base koppeln",
	"frame.lockdown":   "Abriegeln",
	"frame.lockeddown": "Abgeriegelt",
	"frame.good":       "in Ordnung",
	"frame.warn":       "braucht einen Blick",
	"frame.bad":        "nicht in Ordnung",
	"frame.badge":      "anzusehen",
	"frame.until":      "bis %[1]s",
	"frame.gone":       "Die App ist beendet. Starten Sie sie neu, um fortzufahren: bitbox-app window.",
	"frame.foreign":    "Dieser Seite ist nicht mehr zu trauen: Ein anderes Programm antwortet an Stelle der App. Schliessen Sie sie.",
	"frame.changed":    "Diese Seite ist nicht mehr aktuell. Laden Sie sie neu, wenn Sie das Getippte gesichert haben.",
	"frame.stale":      "Nicht mehr aktuell seit %[1]s. Die App antwortet nicht.",
	"frame.idle":       "Diese Seite sperrt sich in %[1]s Sekunden. Drücken Sie eine Taste oder bewegen Sie den Zeiger, um zu bleiben.",
	"frame.left":       "%[1]s: noch %[2]s Sekunden",
	"frame.ended":      "%[1]s: beendet",
	"frame.early":      "Lesen Sie zuerst die Frage, dann antworten Sie.",
	"frame.copied":     "Kopiert",
	"frame.beside":     "Mit der Datei ist nichts geschehen. Legen Sie sie auf ein Feld für Dateien.",

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
	"overview.title":                "Übersicht",
	"overview.nav":                  "Übersicht",
	"overview.well.good":            "Alles in Ordnung.",
	"overview.well.good.more":       "Die Base antwortet, es läuft, was laufen soll, und sie ist so geschlossen, wie sie sein soll.",
	"overview.well.ended":           "Diese App erreicht die Base nicht mehr.",
	"overview.well.ended.more":      "Koppeln Sie neu, wenn diese Base noch Ihnen gehört.",
	"overview.well.lie":             "Der Bericht der Base über sich selbst ist nicht echt.",
	"overview.well.lie.more":        "Jemand hat vielleicht ihre Software verändert. Gehen Sie zur Base und sehen Sie auf ihren Bildschirm.",
	"overview.well.lost":            "Die Base antwortet nicht.",
	"overview.well.lost.more":       "Sie ist vielleicht aus, oder dieser Computer ist in einem anderen Netz.",
	"overview.well.connecting":      "Verbindung zur Base wird aufgebaut …",
	"overview.well.connecting.more": "Das dauert ein paar Sekunden.",
	"overview.well.lockdown":        "Die Base ist abgeriegelt.",
	"overview.well.lockdown.more":   "Nur gekoppelte Apps erreichen sie. Die Seite Sicherheit hebt die Abriegelung auf.",
	"overview.well.critical":        "Die Base ist nicht so geschlossen, wie sie sein soll: %[1]s",
	"overview.well.critical.more":   "Die Seite Sicherheit sagt, was zu tun ist.",
	"overview.well.failed":          "Der Dienst %[1]s ist ausgefallen.",
	"overview.well.failed.more":     "Die Seite Dienste hat sein Protokoll und kann ihn neu starten.",
	"overview.well.trying":          "Eine Änderung wartet auf ihre Bestätigung.",
	"overview.well.trying.more":     "Ohne sie macht die Base sie rückgängig.",
	"overview.well.disk":            "Die Festplatte ist fast voll.",
	"overview.well.disk.more":       "Es ist kaum noch etwas frei.",
	"overview.well.node":            "Der Bitcoin-Knoten antwortet nicht.",
	"overview.well.node.more":       "Die Seite Knoten sagt, warum.",
	"overview.well.warning":         "Eine Sache braucht einen Blick: %[1]s",
	"overview.well.warning.more":    "Die Seite Sicherheit sagt, was zu tun ist.",
	"overview.well.doubted":         "Die Base antwortet vielleicht nicht mehr.",
	"overview.well.doubted.more":    "Sie wird gerade gefragt.",
	"overview.again":                "Nächster Versuch:",
	"overview.try.title":            "Eine Änderung ist auf Probe",
	"overview.try.text":             "Eine andere App hat sie begonnen. Die Base macht sie rückgängig, wenn die Zeit um ist, ausser ein Besitzer behält sie.",
	"overview.try.ends":             "Die Änderung auf Probe",
	"overview.try.keep":             "Behalten …",
	"overview.open.title":           "Was offen ist",
	"overview.open.none":            "Nichts ausser dem Kanal zu Ihren Apps.",
	"overview.open.unknown":         "Diese Base verwaltet nicht, was offen ist. Sie gehört einem Entwickler.",
	"overview.open.button":          "Schliessen …",
	"overview.open.close":           "%[1]s schliessen",
	"overview.open.keys.one":        "für %[1]d Schlüssel",
	"overview.open.keys.many":       "für %[1]d Schlüssel",
	"overview.open.port":            "Port %[1]d.",
	"overview.open.everywhere":      "Aus jedem Netz.",
	"overview.open.from":            "Aus %[1]s.",
	"overview.open.forgood":         "Bis jemand schliesst.",
	"overview.open.window":          "Koppeln",
	"overview.open.window.detail":   "Eine weitere App darf um Kopplung bitten.",
	"overview.findings.title":       "Prüfung",
	"overview.findings.running":     "prüft",
	"overview.findings.at":          "von %[1]s",
	"overview.findings.none":        "Die Base ist so geschlossen, wie sie sein soll.",
	"overview.findings.unknown":     "Diese Base hat keine Prüfung für diese App.",
	"overview.findings.more":        "Und %[1]d weitere.",
	"overview.findings.link":        "Was zu tun ist",
	"overview.node.title":           "Bitcoin-Knoten",
	"overview.node.none":            "Diese Base hat keinen Knoten oder sagt nichts über ihn.",
	"overview.node.missing":         "nicht installiert",
	"overview.node.stopped":         "antwortet nicht",
	"overview.node.starting":        "startet",
	"overview.node.behind":          "holt auf",
	"overview.node.current":         "aktuell",
	"overview.node.height":          "Block",
	"overview.node.peers":           "Gegenstellen",
	"overview.node.done":            "Fertig",
	"overview.node.progress":        "%[1]s der Kette",
	"overview.health.title":         "Befinden",
	"overview.health.load":          "Last",
	"overview.health.memory":        "Arbeitsspeicher",
	"overview.health.disk":          "Festplatte",
	"overview.health.temperature":   "Temperatur",
	"overview.health.free":          "%[1]s von %[2]s frei",
	"overview.health.curve":         "%[1]s, der letzte Tag",
	"overview.now.title":            "Jetzt",
	"overview.now.none":             "Nichts ist geschehen, seit die App zusieht.",
	"overview.now.times":            "%[1]d-mal",

	// deed
	"deed.title": "Änderung",
	"deed.opens": "öffnet",

	// security
	"security.title":                "Sicherheit",
	"security.nav":                  "Sicherheit",
	"security.severity.info":        "Hinweis",
	"security.severity.warning":     "Warnung",
	"security.severity.critical":    "kritisch",
	"security.severity.unspecified": "unbekannt",

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
	"errors.title":        "Das hat nicht geklappt",
	"errors.enter.title":  "Ihre Bases öffnen",
	"errors.enter.text":   "Diese Seite öffnet sich von selbst. Wenn nicht, tippen Sie den Code ein, den die App in ihrem Terminal zeigt.",
	"errors.enter.code":   "Code aus dem Terminal",
	"errors.enter.hint":   "bitbox-app window --no-browser zeigt einen Code. Er gilt fünf Minuten.",
	"errors.enter.button": "Öffnen",
	"errors.notice.title": "Das hat nicht geklappt",
	"errors.notice.back":  "Zurück zu den Bases",
	"errors.locked.title": "Gesperrt",
	"errors.locked.text":  "Auf dieser Seite steht nichts von Ihren Bases. Um fortzufahren, starten Sie das Fenster neu:",
	"errors.nowhere":      "Diese Seite gibt es nicht. Die Base oder die Aufgabe ist vielleicht nicht mehr da.",
}
