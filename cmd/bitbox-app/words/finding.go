package words

import (
	"strings"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// Finding is a finding of the audit for people. The state that was found, and the one that was expected,
// are left to the Base, in English.
type Finding struct{ Title, Why, Fix Text }

// Finding says a finding. A text that the language does not have is left as the Base says it: one of
// an id that only a newer Base knows.
func (l Language) Finding(f *basev1.Finding) Finding {
	said := Finding{Text{f.GetTitle(), English.Tag}, Text{f.GetWhy(), English.Tag}, Text{f.GetFix(), English.Tag}}
	known, found := l.findings[f.GetId()]
	if check, unchecked := strings.CutPrefix(f.GetId(), "unchecked-"); unchecked && l.findings != nil {
		known, found = l.findings["unchecked"], true
		known.title += " (" + check + ")"
	}
	if !found {
		return said
	}
	for text, own := range map[*Text]string{&said.Title: known.title, &said.Why: known.why, &said.Fix: known.fix} {
		if own != "" {
			*text = Text{own, l.Tag}
		}
	}
	return said
}

// finding has the words for the findings with an id. An empty one is left to the Base, which knows the
// place that it is about.
type finding struct{ title, why, fix string }

// germanFindings are those of docs/audit.md, by id.
var germanFindings = map[string]finding{
	"listener-unexpected": {
		"Ein unerwartetes Programm wartet auf Verbindungen",
		"Der Paketfilter hält Fremde von ihm fern, aber es sollte nicht da sein: Es ist ein Versehen oder ein Eindringling.",
		"Finden Sie heraus, zu welchem Dienst es gehört, und halten Sie ihn an oder entfernen Sie sein Paket. Kennen Sie es nicht, trennen Sie die Base vom Netz.",
	},
	"entry-silent": {
		"Der Eingang nimmt keine Verbindungen an",
		"Keine App kann sich verbinden.",
		"Startet NGINX neu.",
	},
	"firewall-ipv4": {
		"Der Paketfilter für IPv4 wurde verändert",
		"Eine zusätzliche Regel kann einen Port öffnen oder etwas hinauslassen; eine fehlende kann Sie aussperren.",
		"Lädt die Regeln in einem Schritt neu. Bestehende Verbindungen bleiben offen.",
	},
	"firewall-ipv6": {
		"Der Paketfilter für IPv6 wurde verändert",
		"Eine zusätzliche Regel kann einen Port öffnen oder etwas hinauslassen; eine fehlende kann Sie aussperren.",
		"Lädt die Regeln in einem Schritt neu. Bestehende Verbindungen bleiben offen.",
	},
	"firewall-foreign": {
		"Es gibt Paketregeln außerhalb des Paketfilters",
		"Solche Regeln können einen Port umleiten oder Pakete am Filter vorbeilassen, und iptables zeigt sie nicht.",
		"Entfernt sie. Wurde die Tabelle der Sperren verändert, legt fail2ban sie mit denselben Sperren neu an.",
	},
	"firewall-legacy": {
		"Es gibt Regeln des alten iptables",
		"Der Kernel wendet auch den alten Filter an, und kein anderer Befehl zeigt dessen Regeln.",
		"Entfernt sie.",
	},
	"generation-files": {
		"Die Konfiguration wurde verändert",
		"Ein Server liest sie beim Starten und täte dann, was kein Besitzer signiert hat.",
		"Schreibt die Konfiguration neu und setzt sie in Kraft.",
	},
	"generation-number": {
		"Die falsche Konfiguration ist in Kraft",
		"Die Base ist vielleicht offener, als ihre Besitzer entschieden haben.",
		"Setzt die signierten Einstellungen wieder in Kraft.",
	},
	"nginx-config": {
		"NGINX läuft mit einer anderen Konfiguration",
		"Es bietet vielleicht etwas an, was kein Besitzer geöffnet hat.",
		"Startet NGINX neu. Apps sind kurz getrennt und verbinden sich wieder.",
	},
	"nginx-privileged": {
		"NGINX hat besondere Rechte",
		"Es ist Fremden ausgesetzt. Wer es übernimmt, bekommt seine Rechte.",
		"Startet NGINX mit unserer Dienstbeschreibung neu. Apps sind kurz getrennt und verbinden sich wieder.",
	},
	"ssh-state": {
		"SSH ist nicht so, wie die Besitzer es signiert haben",
		"SSH ohne Frist ist ein unbewachter Zugang. Sollte SSH eingeschaltet sein und ist es nicht, sind Sie ausgesperrt.",
		"Hält sshd an und beendet seine Sitzungen, oder startet es, wenn seine Frist läuft.",
	},
	"ssh-settings": {
		"sshd hat falsche Einstellungen",
		"Eine einzige gelockerte Einstellung kann Passwörter, root oder einen anderen Schlüssel zulassen.",
		"Schreibt die Konfiguration neu und startet sshd mit unserer Dienstbeschreibung neu.",
	},
	"ssh-keys": {
		"Die Liste der SSH-Schlüssel wurde verändert",
		"Wer einen Schlüssel hinzugefügt hat, kann sich anmelden, sobald SSH eingeschaltet ist.",
		"Schreibt die Datei neu.",
	},
	"ssh-debian": {
		"Debians eigener SSH-Dienst kann starten",
		"Er nähme Verbindungen ohne Frist und mit anderen Einstellungen an.",
		"Hält ihn an und sperrt ihn.",
	},
	"services-debian": {
		"Ein Serverdienst von Debian kann starten",
		"Er liefe mit mehr Rechten und mit Debians Konfiguration.",
		"Hält diese Dienste an und sperrt sie.",
	},
	"fail2ban-silent": {
		"fail2ban antwortet nicht",
		"Wer Passwörter oder Schlüssel durchprobiert, wird nicht gesperrt.",
		"Startet fail2ban neu. Es behält seine Sperren.",
	},
	"fail2ban-settings": {
		"fail2ban hat falsche Einstellungen",
		"Angreifer haben vielleicht mehr Versuche, als Sie erlaubt haben, oder werden nie gesperrt.",
		"Startet fail2ban mit der geltenden Konfiguration neu. Es behält seine Sperren.",
	},
	"unit-changed": {
		"Die Abschottung eines Dienstes wurde verändert",
		"Die Abschottung hält einen Angreifer, der einen Dienst übernimmt, vom Rest der Base fern.",
		"Entfernt, was hinzugefügt wurde, und startet die Dienste neu. Eine veränderte Datei des Pakets stellt die nächste Version wieder her.",
	},
	"unit-stopped": {
		"Ein Dienst läuft nicht",
		"Ein Teil der Base arbeitet nicht, oder ein Schutz fehlt.",
		"Startet ihn.",
	},
	"file-modes": {
		"Eine Datei der Base hat falsche Rechte",
		"Andere können vielleicht ein Geheimnis lesen oder ändern, was die Base tut.",
		"Stellt Eigentümer und Rechte wieder her.",
	},
	"world-writable": {
		"Jeder Benutzer kann eine Systemdatei ändern",
		"Jeder übernommene Dienst könnte ändern, was andere lesen oder ausführen.",
		"Nimmt den anderen Benutzern das Schreibrecht.",
	},
	"setuid": {
		"Ein unbekanntes Programm läuft mit den Rechten eines anderen Benutzers",
		"Jeder Dienst könnte damit root werden. Eindringlinge lassen oft eines zurück, um wiederzukommen.",
		"Kennen Sie es nicht, trennen Sie die Base vom Netz. Sonst entfernen Sie sein Paket oder diese Rechte.",
	},
	"files-left-out": {
		"Es sind zu viele Dateien, um alle zu prüfen",
		"Jemand versteckt vielleicht eine Datei in der Menge oder füllt den Datenträger. Die Base selbst legt nie so viele an.",
		"",
	},
	"password": {
		"Ein Benutzer hat ein Passwort",
		"Ein Passwort lässt sich erraten, an der Konsole und überall sonst, wo eines verlangt wird.",
		"Entfernt das Passwort. Schlüssel gelten weiter.",
	},
	"second-root": {
		"Es gibt einen zweiten root-Benutzer",
		"Das ist ein versteckter Weg zur vollen Kontrolle.",
		"Haben Sie ihn nicht angelegt, trennen Sie die Base vom Netz. Sonst entfernen Sie den Benutzer mit userdel.",
	},
	"updates": {
		"Sicherheitsupdates stehen an",
		"Die Fehler, die sie beheben, sind öffentlich bekannt.",
		"Die Base installiert sie jede Nacht; bitbox-app update --debian installiert sie jetzt.",
	},
	"updates-unknown": {
		"Die Base kann nicht sagen, ob Sicherheitsupdates anstehen",
		"Ohne die Paketlisten bleibt ein alter Fehler unbemerkt.",
		"Prüfen Sie, ob die Base ins Internet kommt und ob ihre Uhr stimmt; sie holt die Listen jeden Tag.",
	},
	"debian-support": {
		"Debians Unterstützung für dieses System endet oder ist zu Ende",
		"Neue Fehler des Systems werden bald oder schon jetzt nicht mehr behoben.",
		"Installieren Sie eine neuere Version der Base.",
	},
	"provisioning-late": {
		"Auf der EFI-Partition liegt eine Bereitstellungsdatei",
		"Die Base beachtet sie nicht. Aber nach einem Zurücksetzen würde sie gelesen, und ihr Verfasser bestimmte, wem die Base gehört.",
		"",
	},
	"disk-failing": {
		"Ein Datenträger meldet, dass er ausfällt",
		"Früher oder später verliert er, was auf ihm ist.",
		"Ersetzen Sie ihn. Die Blockchain wird auf einen anderen Datenträger neu geladen; auf dem des Systems sind auch die Kopplungen.",
	},
	"kernel-settings": {
		"Der Kernel hat falsche Einstellungen",
		"Sie stützen den Paketfilter: Ein Fehler in einem von beiden öffnet nichts.",
		"Stellt die Einstellungen wieder her.",
	},
	"kernel-settings-host": {
		"In einem Container nicht anwendbar: Einstellungen des Kernels",
		"Eine Base auf eigener Maschine setzt sie. Ein Container kann das nicht, denn sein Kernel ist der des Wirtes.",
		"Im Container ist nichts zu tun. Die Base ist ebenso geschlossen, aber ein Fehler im Kernel ist leichter auszunutzen.",
	},
	"secure-boot": {
		"Secure Boot ist nicht eingeschaltet",
		"Wer die Maschine in der Hand hat, kann etwas anderes darauf starten, das dann wie die Base aussieht.",
		"Schalten Sie Secure Boot in den Einstellungen der Firmware ein, falls es das dort gibt. Das Abbild bringt die Schlüssel mit.",
	},
	"open-for-good": {
		"Eine zusätzliche Schnittstelle ist dauerhaft offen",
		"Was niemand mehr braucht, sollte nicht offen sein. Eine Wallet in Gebrauch braucht sie.",
		"Benutzt keine Wallet sie, schließen Sie sie.",
	},
	"unchecked": {
		"Eine Prüfung ließ sich nicht ausführen",
		"Dort kann etwas nicht stimmen, ohne dass es auffällt.",
		"Lesen Sie den Grund. Bleibt es dabei, starten Sie die Base neu, und lesen Sie dann das Protokoll des Systemhelfers.",
	},
}
