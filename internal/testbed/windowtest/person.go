//go:build linux

package windowtest

import (
	"encoding/json"
	"fmt"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/chromiumtest"
)

// Say is a sentence of the window, in English.
func Say(key string, arguments ...any) string { return words.English.Say(key, arguments...) }

// Press presses the button of the form of a deed.
func Press(tab *chromiumtest.Tab, deed string) {
	tab.Click(`form[action$="/` + deed + `"] button, form[action*="/deed/` + deed + `?"] button`)
}

// Read waits until a yes counts, which is pale and dead for its first second.
func Read(tab *chromiumtest.Tab) {
	tab.Await("no yes can be pressed", `[...document.querySelectorAll("[data-dead]")].every((e) => getComputedStyle(e).opacity === "1")`)
}

// ended tells whether a deed has ended, in JavaScript.
const ended = `document.querySelector("[data-say=end]")`

// Yes says yes to the question of a deed, and does not wait for its end.
func Yes(tab *chromiumtest.Tab) {
	tab.AwaitPath("/deed/")
	tab.Await("there is no question", `document.querySelector("[data-dead]")`)
	Read(tab)
	tab.Press(Say("deed.yes"))
}

// Ended waits until a deed has ended, and tells whether it was done.
func Ended(tab *chromiumtest.Tab) (done bool) {
	tab.Await("the deed does not end", ended)
	return tab.Shows(Say("deed.done.title")) && !tab.Shows(Say("deed.failed.title"))
}

// Agree says yes to the question of a deed, and waits until it is done.
func Agree(t chromiumtest.T, tab *chromiumtest.Tab) {
	t.Helper()
	Yes(tab)
	if !Ended(tab) {
		t.Fatalf("the deed has failed:\n%s", tab.Text())
	}
}

// Digits waits until the page of a pairing shows large digits: its "number", or its "code".
func Digits(tab *chromiumtest.Tab, kind string) string {
	tab.AwaitPath("/deed/")
	selector, _ := json.Marshal(fmt.Sprintf(".digits[data-say=%s] [aria-hidden]", kind)) // of a string, it cannot fail
	digits := fmt.Sprintf("document.querySelector(%s)", selector)
	tab.Await("it never shows the "+kind, digits)
	return chromiumtest.Eval[string](tab, digits+".innerText.trim()")
}
