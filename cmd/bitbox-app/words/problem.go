package words

import (
	"context"
	"errors"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/releases"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

// Text is text for people, with its language in lang (BCP 47): what a Base or the client says is in
// English, and a page says so to screen readers.
type Text struct{ Text, Lang string }

// Problem says what went wrong, in a sentence. English says it as the client does. Another language
// has a sentence for each kind of error of the client; an unknown kind is left in English. An error that
// Failing has made is said in each.
func (l Language) Problem(err error) Text {
	if err == nil {
		return Text{}
	}
	if failure := (*failure)(nil); errors.As(err, &failure) {
		return l.Said(failure.Said)
	}
	for _, problem := range l.problems {
		if errors.Is(err, problem.kind) {
			return Text{problem.sentence, l.Tag}
		}
	}
	return Text{client.Explain(err), English.Tag}
}

// failure is an error that each language says.
type failure struct {
	Said
	kind error
}

// Failing is an error of a kind of package client whose sentence has this key.
func Failing(kind error, key string, args ...any) error { return &failure{Saying(key, args...), kind} }

func (f *failure) Error() string { return f.String() }

func (f *failure) Unwrap() error { return f.kind }

// problem is the sentence of a kind of error.
type problem struct {
	kind     error
	sentence string
}

// germanProblems are those of client.Error, in the order in which they are looked for: an error may be
// of several kinds, and the first says more.
var germanProblems = []problem{
	{releases.ErrNoKey, "Diese App wurde ohne Versionsschlüssel gebaut und liest keine Liste der Versionen."},
	{releases.ErrAddress, "Die Adresse einer Liste der Versionen beginnt mit https:// oder http://."},
	{releases.ErrNoAddress, "Geben Sie die Adresse der Liste der Versionen an. Diese App merkt sie sich."},
	{releases.ErrFetch, "Der Server gibt die Datei nicht her. Stimmt die Adresse, und ist dieser Computer im Internet?"},
	{releases.ErrOlder, "Diese Liste der Versionen ist älter als die, die diese App gesehen hat. Jemand hält vielleicht Neues zurück."},
	{release.ErrFeedSignature, "Der Versionsschlüssel hat diese Liste nicht signiert."},
	{release.ErrFeedExpired, "Diese Liste der Versionen ist zu alt."},
	{release.ErrFeedTime, "Diese Liste der Versionen ist aus der Zukunft. Prüfen Sie die Uhr dieses Computers."},
	{release.ErrNotAFeed, "Diese Datei ist keine Liste der Versionen."},
	{client.ErrNoSuchKey, "Die Base hat keinen solchen SSH-Schlüssel."},
	{client.ErrNoSuchApp, "Die Base kennt keine solche App."},
	{client.ErrLyingBase, "Die Angaben der Base halten der Prüfung nicht stand. Jemand hat vielleicht ihre Software verändert."},
	{client.ErrNotApproved, "Es wurde nichts geändert."},
	{client.ErrNoChange, "Es gibt nichts zu ändern."},
	{client.ErrBusy, "Eine andere Änderung ist im Gang. Warten Sie, bis sie zu Ende ist."},
	{client.ErrUndone, "Die Base hat die Änderung rückgängig gemacht."},
	{client.ErrUnsettled, "Es ist nicht bekannt, ob die Änderung in Kraft ist. Sehen Sie nach, bevor Sie es erneut versuchen."},
	{client.ErrUpdateUndone, "Die Base hat das Update rückgängig gemacht."},
	{client.ErrUpdateUnknown, "Es ist nicht bekannt, wie das Update ausgegangen ist. Sehen Sie nach, bevor Sie es erneut versuchen."},
	{client.ErrRelease, "Diese Datei ist keine Version, die die Base annimmt."},
	{client.ErrOtherSoftware, "Auf der Base läuft eine andere Software."},
	{client.ErrSecondBoard, "Ein zweites Gerät antwortet auf dieselbe Bereitstellung."},
	{client.ErrFileExists, "Dort liegt schon eine Bereitstellungsdatei."},
	{client.ErrNoSuchBase, "Die App kennt keine solche Base."},
	{client.ErrSeveralBases, "Die App kennt mehrere Bases. Wählen Sie eine."},
	{client.ErrUnreachable, "Die Base ist nicht zu erreichen. Ist sie eingeschaltet und im selben Netz?"},
	{client.ErrNotABase, "Unter dieser Adresse antwortet keine Base."},
	{client.ErrSilent, "Unter dieser Adresse antwortet niemand. Das ist keine Base, eine andere, oder sie kennt diese App nicht."},
	{client.ErrRevoked, "Die Base hat diese App ausgeschlossen."},
	{client.ErrPairAgain, "Die Kopplung wurde an der Base nicht abgeschlossen. Koppeln Sie neu."},
	{client.ErrNotAccepted, "Niemand hat die Anfrage an der Base rechtzeitig angenommen."},
	{client.ErrRejected, "An der Base hat jemand „Nein“ geantwortet."},
	{client.ErrInterference, "Die Kopplung ist gescheitert. Jemand hat sich vielleicht eingemischt."},
	{client.ErrTooManyReveals, "Zu viele Kopplungen sind gescheitert. Die App wartet, bevor sie es erneut versucht."},
	{client.ErrInvalid, "Diese Angabe ist ungültig."},
	{client.ErrStorage, "Die App kann ihre eigenen Dateien nicht lesen oder schreiben."},
	{client.ErrLost, "Die Verbindung zur Base ist abgerissen. Sehen Sie nach, ob die Änderung gemacht wurde."},
	{client.ErrNoRights, "Diese App hat an der Base keine Rechte mehr."},
	{client.ErrDenied, "Die Rolle dieser App erlaubt das nicht."},
	{client.ErrNotFound, "Das gibt es auf der Base nicht."},
	{client.ErrNotNow, "Das geht im jetzigen Zustand der Base nicht."},
	{client.ErrConflict, "Eine andere Änderung kam zuvor. Versuchen Sie es erneut."},
	{client.ErrTooMuch, "Eine Grenze der Base ist erreicht. Versuchen Sie es später."},
	{client.ErrUnknownToBase, "Die Software der Base kennt das nicht. Aktualisieren Sie sie."},
	{client.ErrBaseFailed, "Die Base konnte das nicht tun."},
	{context.DeadlineExceeded, "Die Base hat nicht rechtzeitig geantwortet. Ist sie eingeschaltet und erreichbar?"},
	{context.Canceled, "Abgebrochen."},
}
