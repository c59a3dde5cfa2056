//go:build linux

package window_test

import (
	"net/netip"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/chromiumtest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/windowtest"
)

// say is a sentence of the window.
func say(key string, arguments ...any) string { return words.English.Say(key, arguments...) }

// press presses the button of the form of a deed.
func (h *home) press(deed string) {
	h.t.Helper()
	h.tab.Click(`form[action$="/` + deed + `"] button`)
}

// agrees says yes to the question of the deed, and waits until it is done.
func (h *home) agrees() {
	h.t.Helper()
	h.tab.AwaitPath("/deed/")
	// A yes that comes within the first second is not taken.
	yes := `form[action$="/answer"] button[value=yes]`
	h.tab.Await("there is a question, or its end", "document.querySelector('"+yes+"') || "+h.ended())
	if !chromiumtest.Until(func() bool {
		if chromiumtest.Eval[bool](h.tab, h.ended()) {
			return true
		}
		if chromiumtest.Eval[bool](h.tab, "!!document.querySelector('"+yes+"')") {
			h.tab.Click(yes)
		}
		return false
	}) {
		h.t.Fatalf("the deed does not end:\n%s", h.tab.Text())
	}
	if !h.tab.Shows(say("deed.done.title")) || h.tab.Shows(say("deed.failed.title")) {
		h.t.Fatalf("the deed has failed:\n%s", h.tab.Text())
	}
}

// ended tells whether a deed has ended, in JavaScript.
func (h *home) ended() string { return "!!document.querySelector('[data-say=end]')" }

func TestSSHIsOpenedWithAKeyForTenMinutesAndEnds(t *testing.T) {
	h := newHome(t, windowtest.Options{})
	h.visit("security")
	h.tab.Type("#keys", key)
	h.press("add-ssh-keys")
	h.tab.AwaitText("anna")
	h.agrees()
	h.visit("security")
	h.press("enable-ssh") // ten minutes are what is chosen first
	h.tab.AwaitText("10 min")
	h.agrees()
	h.visit("overview")
	h.tab.Await("SSH is open, and counts down", `[...document.querySelectorAll("time[data-until]")].some((e) => e.dataset.spoken.includes("SSH"))`)
	h.Advance(10 * time.Minute)
	h.visit("security")
	h.tab.Await("SSH has ended by itself", `![...document.querySelectorAll("time[data-until]")].some((e) => e.dataset.spoken.includes("SSH"))`)
}

func TestDriftIsFoundAndRepaired(t *testing.T) {
	h := newHome(t, windowtest.Options{})
	h.drift()
	h.run("audit")
	h.visit("security")
	h.tab.AwaitText("sshd runs with settings that are not the Base's")
	h.press("fix")
	h.agrees()
	h.visit("security")
	h.tab.AwaitNoText("sshd runs with settings that are not the Base's")
}

func TestABanIsLifted(t *testing.T) {
	h := newHome(t, windowtest.Options{})
	h.Machine.Ban(bruteforce.Ban{Jail: "sshd", Addr: netip.MustParseAddr("192.0.2.7"), Since: time.Now(), Until: time.Now().Add(time.Hour)})
	h.visit("security")
	h.tab.AwaitText("192.0.2.7")
	h.press("lift-ban")
	h.agrees()
	if lifted := h.Machine.Lifted(); len(lifted) != 1 || lifted[0] != netip.MustParseAddr("192.0.2.7") {
		t.Errorf("lifted are %v", lifted)
	}
}

func TestAPersonIsCutOffForGood(t *testing.T) {
	h := newHome(t, windowtest.Options{})
	windowtest.Pair(t, h.Appliance, "", "Phone", basev1.Role_ROLE_VIEWER)
	h.visit("people")
	h.tab.AwaitText("Phone")
	h.press("revoke")
	h.agrees()
	h.visit("people")
	h.tab.Await("the Phone is gone", `!document.querySelector("main table").innerText.includes("Phone")`)
}

// Two tabs show the same deed, and an answer in one is the answer in both.
func TestTwoTabsShowTheSame(t *testing.T) {
	h := newHome(t, windowtest.Options{})
	second := h.browser.Tab()
	second.Open(h.app.Origin() + "/base/" + h.id() + "/people")
	h.visit("people")
	h.press("open-window")
	h.tab.AwaitPath("/deed/")
	second.Open(h.app.Origin() + h.tab.Path())
	second.AwaitText(say("deed.yes"))
	h.agrees()
	second.Await("the other tab shows that it is done", h.ended())
}

func TestABaseThatGoesAwayAndComesBackIsShownSo(t *testing.T) {
	h := newHome(t, windowtest.Options{})
	h.visit("overview")
	lost := say("overview.well.lost")
	h.tab.AwaitNoText(lost)
	h.Shut()
	h.tab.AwaitText(lost)
	h.Open()
	h.tab.AwaitNoText(lost)
}
