//go:build linux

package window_test

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/proxy"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/chromiumtest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/machinetest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/windowtest"
)

// say is a sentence of the window.
var say = windowtest.Say

// press presses the button of the form of a deed.
func (h *home) press(deed string) { h.t.Helper(); windowtest.Press(h.tab, deed) }

// agrees says yes to the question of the deed, and waits until it is done.
func (h *home) agrees() { h.t.Helper(); windowtest.Agree(h.t, h.tab) }

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
	h.tab.Click("[data-say=end] ~ .acts a") // leads to how to log in
	h.tab.AwaitText(say("security.login.title"))
	host, _, _ := strings.Cut(h.Address(), ":")
	for id, want := range map[string]string{"ssh-login": "ssh base@" + host, "ssh-fingerprint": h.hostKey().Fingerprint} {
		if got := chromiumtest.Eval[string](h.tab, `document.getElementById(`+quote(id)+`).innerText`); got != want {
			t.Errorf("%s is %q, not %q", id, got, want)
		}
	}
	portray(t, h.tab, "login")
	h.visit("overview")
	h.tab.Await("SSH is open, and counts down", `[...document.querySelectorAll("time[data-until]")].some((e) => e.dataset.spoken.includes("SSH"))`)
	h.Advance(10 * time.Minute)
	h.visit("security")
	h.tab.Await("SSH has ended by itself", `![...document.querySelectorAll("time[data-until]")].some((e) => e.dataset.spoken.includes("SSH"))`)
	h.tab.AwaitNoText(say("security.login.title"))
}

// hostKey is that of the Base's sshd, read from its disk.
func (h *home) hostKey() sshkey.Key {
	h.t.Helper()
	helper, _ := h.Directories()
	blob, err := sshaccess.PublicHostKey(filepath.Join(helper, "host_ed25519"))
	if err != nil {
		h.t.Fatal(err)
	}
	key, err := sshkey.Of(blob, "")
	if err != nil {
		h.t.Fatal(err)
	}
	return key
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
	if !windowtest.Ended(second) {
		t.Error("the other tab shows that it has failed")
	}
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

// open tells whether an extra API is open at the Base.
func (b *base) open(kind posture.Kind) bool {
	return slices.ContainsFunc(b.Effective().Endpoints, func(e posture.Endpoint) bool { return e.Kind == kind })
}

// readCode reads a QR code from a picture of the page, as a wallet's camera does.
func readCode(t *testing.T, tab *chromiumtest.Tab) string {
	t.Helper()
	picture, err := png.Decode(bytes.NewReader(tab.PictureOf("figure svg.picture-code")))
	if err != nil {
		t.Fatal(err)
	}
	bitmap, err := gozxing.NewBinaryBitmapFromImage(picture)
	if err != nil {
		t.Fatal(err)
	}
	read, err := qrcode.NewQRCodeReader().Decode(bitmap, nil)
	if err != nil {
		t.Fatalf("no QR code can be read from the page: %v", err)
	}
	return read.GetText()
}

func TestAWalletIsConnectedFromThePageOfTheNode(t *testing.T) {
	h := newHome(t, windowtest.Options{})
	h.visit("node")
	h.tab.AwaitText(say("wallet.closed"))
	h.press("expose") // until somebody closes it is what is chosen first
	h.agrees()
	h.visit("node")
	h.tab.AwaitText(say("wallet.good"))
	line := chromiumtest.Eval[string](h.tab, `document.getElementById("wallet-line").innerText`)
	if host, _, _ := strings.Cut(h.Address(), ":"); line != fmt.Sprintf("%s:%d:s", host, posture.Extras[0].Port) {
		t.Errorf("the line is %q", line)
	}
	portray(t, h.tab, "wallet")
	if read := readCode(t, h.tab); read != line {
		t.Errorf("the QR code says %q, the line %q", read, line)
	}
	helper, _ := h.Directories()
	served, err := proxy.CertificateDigest(helper, string(posture.KindElectrum))
	if err != nil {
		t.Fatal(err)
	}
	shown := chromiumtest.Eval[string](h.tab, `document.getElementById("wallet-fingerprint").innerText`)
	if strings.ReplaceAll(shown, ":", "") != fmt.Sprintf("%X", served) {
		t.Errorf("the fingerprint is %q, that of the certificate %X", shown, served)
	}
	h.press("end-lease")
	h.agrees()
	h.visit("node")
	h.tab.AwaitText(say("wallet.closed"))
	if h.open(posture.KindElectrum) {
		t.Error("the Base has it open")
	}
}

// The change has closed the entry, as a wrong one would, so the App cannot confirm it.
func TestATryThatIsNotConfirmedIsUndoneAndThePageSaysSo(t *testing.T) {
	h := newHome(t, windowtest.Options{})
	h.visit("node")
	h.press("expose")
	h.tab.AwaitPath("/deed/")
	var once atomic.Bool
	h.Machine.WhenExamined(func() {
		if !once.Swap(true) {
			h.Shut()
		}
	})
	windowtest.Yes(h.tab)
	was := false
	until(t, "the Base tries the change and undoes it", func() bool {
		open := h.open(posture.KindElectrum)
		if was = was || open; open {
			h.Advance(61 * time.Second)
		}
		return was && !open
	})
	h.Open()
	h.tab.AwaitText(say("deed.failed.title"))
	h.tab.AwaitText("the Base undid it")
	h.visit("log")
	h.tab.AwaitText(say("log.what.posture-undone"))
	h.visit("node")
	h.tab.AwaitText(say("wallet.closed"))
}

// A second person comes in with an App of their own, whose window leads them.
func TestASecondPersonIsLetInAsAViewer(t *testing.T) {
	h := newHome(t, windowtest.Options{})
	h.visit("people")
	h.tab.Choose("#window-role", "viewer")
	h.press("open-window")
	h.agrees()
	h.visit("people")
	h.tab.AwaitText(say("people.window.open"))
	h.tab.AwaitText(say("people.window.role", say("pair.role.viewer")))
	second := newNewcomer(t, windowtest.Options{})
	second.asks(h.Address())
	second.pairs(h.display())
	viewers := `[...document.querySelectorAll("main table tr")].filter((r) => r.innerText.includes(` + quote(say("pair.role.viewer")) + `))`
	h.tab.Await("one App is listed as a viewer", viewers+`.length === 1 && !`+viewers+`[0].innerText.includes("laptop")`)
	// Their window shows the Base, and has nothing that only an owner may do.
	second.tab.Click("[data-say=end] ~ .acts a")
	second.tab.AwaitPath("/base/")
	second.tab.Click(`nav a[href$="/people"]`)
	second.tab.AwaitText(say("people.owners"))
}

// valve holds an update after some pieces until it is opened.
type valve struct {
	helperclient.Port
	pieces atomic.Int32
	most   int32
	opened chan struct{}
}

func (v *valve) Stream(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error {
	if request.GetUpdatePiece() != nil && v.pieces.Add(1) > v.most {
		select {
		case <-v.opened:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return v.Port.Stream(ctx, request, receive)
}

func TestAnUpdateShowsHowFarItIsUntilTheNewVersionRuns(t *testing.T) {
	file, err := machinetest.Release("1.1", machinetest.Architecture, 16<<20, false)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(chromiumtest.Home(t, chromiumtest.UserID), "release")
	if err := os.WriteFile(path, file, 0o644); err != nil {
		t.Fatal(err)
	}
	valve := &valve{most: 8, opened: make(chan struct{})}
	h := newHomeAt(t, newBaseThrough(t, func(port helperclient.Port) helperclient.Port {
		valve.Port = port
		return valve
	}), windowtest.Options{})
	h.visit("updates")
	h.tab.AwaitText(machinetest.FirstVersion)
	h.tab.Attach("#release", path)
	h.press("install")
	h.tab.AwaitText(say("deed.consent.title"))
	h.tab.AwaitText("1.1")
	windowtest.Yes(h.tab)
	bar := `document.querySelector("progress.bar")`
	h.tab.Await("the bar stands between its ends", bar+" && "+bar+".value > 0 && "+bar+".value < "+bar+".max")
	h.tab.Await("the bar has a name", bar+".getAttribute('aria-label') === "+quote(say("deed.sent.label")))
	close(valve.opened)
	h.tab.AwaitText(say("deed.done.title"))
	h.tab.AwaitText("1.1 and is healthy")
	if left, _ := filepath.Glob(filepath.Join(h.app.Dir(), "upload-*")); len(left) > 0 {
		t.Errorf("the App keeps %q", left)
	}
	h.visit("updates")
	h.tab.AwaitText(say("updates.phase.done"))
	if version, err := h.Software.Installed(t.Context()); version != "1.1" || err != nil {
		t.Errorf("installed is %q, %v", version, err)
	}
}
