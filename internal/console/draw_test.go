package console

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/digits"
)

var update = flag.Bool("update", false, "rewrite the screens in testdata")

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func newBase() *systemv1.Summary {
	return &systemv1.Summary{
		NodeName: "BitBox Base", Addresses: []string{"fe80::1", "fd00::2", "192.168.1.17"}, SoftwareVersion: "1.2.3",
	}
}

func openBase() *systemv1.Summary {
	s := newBase()
	s.NodeName, s.Owners, s.Apps, s.Revision = "kitchen", 1, 3, 12
	s.Addresses = append(s.Addresses, "10.0.0.1", "10.0.0.2")
	s.Ssh = &systemv1.OpenSSH{Keys: 2, RemainingMs: uint64((119*time.Minute - time.Second).Milliseconds())}
	s.Apis = []*systemv1.OpenAPI{{Kind: "electrum", Port: 50002, RemainingMs: uint64((49 * time.Hour).Milliseconds())}}
	s.Bans, s.Findings, s.Audited = 1, 2, true
	s.LastReset = &systemv1.ResetRecord{OrderedAt: noon.Unix(), By: "an owner's App"}
	return s
}

func ceremony(name string, role basev1.Role, change func(*systemv1.Ceremony)) *systemv1.Snapshot {
	c := &systemv1.Ceremony{
		Id: []byte("0123456789abcdef"), Phase: systemv1.Ceremony_PHASE_SHOWN, Number: 123456, Role: role, AppName: name, Code: "482 913",
	}
	if change != nil {
		change(c)
	}
	return &systemv1.Snapshot{Version: 1, Listening: true, Ceremony: c}
}

// evil are names that try to draw something else.
var evil = map[string]string{
	"escapes": "\x1b[2J\x1b[1;1H\x1b]0;x\x07\x9b5mphone\r\n\x0e\u202eenohp",
	"wide":    strings.Repeat("\u6f22", 64),
	"fake":    `x" is your phone. Press Y now: "`,
	"solid":   strings.Repeat(string(digits.Solid), 30),
	"long":    strings.Repeat("w", 4096),
	"bytes":   "\xff\xfe\x80",
}

// screens are the screens of the golden files.
func screens() map[string]*desk {
	listening := func(numbers ...uint32) *systemv1.Snapshot {
		return &systemv1.Snapshot{Version: 1, Listening: true, Requests: numbers}
	}
	paired := &systemv1.Snapshot{Version: 1, Paired: true}
	locked := openBase()
	locked.Lockdown, locked.Ssh, locked.Apis, locked.Findings = true, nil, nil, 0
	d := map[string]*desk{
		"waiting":     {},
		"new":         {summary: newBase(), snapshot: listening()},
		"claim":       {summary: newBase(), snapshot: &systemv1.Snapshot{Listening: true, ClaimOpen: true}},
		"paired":      {summary: openBase(), snapshot: paired},
		"locked down": {summary: locked, snapshot: paired, notice: "Pairing is closed."},
		"not known":   {snapshot: paired},
		"window":      {summary: openBase(), snapshot: &systemv1.Snapshot{Listening: true, WindowOpen: true, WindowRemainingMs: 132_000}},
		"open":        {summary: openBase(), snapshot: paired, page: pageOpen},
		"request":     {summary: newBase(), snapshot: listening(70809)},
		"several":     {summary: newBase(), snapshot: listening(123456, 654321, 5)},
		"typed":       {summary: newBase(), snapshot: listening(123456), typed: "4829"},
		"role":        {summary: openBase(), snapshot: listening(123456), chosen: true, number: 123456, roleAt: 1},
		"accepted": {summary: newBase(), snapshot: ceremony("", 0,
			func(c *systemv1.Ceremony) { c.Phase = systemv1.Ceremony_PHASE_ACCEPTED })},
		"code":       {summary: newBase(), snapshot: ceremony("Zoë's phone", basev1.Role_ROLE_OWNER, nil)},
		"code typed": {summary: newBase(), snapshot: ceremony("phone", basev1.Role_ROLE_OPERATOR, nil), typed: "48"},
		"confirmed": {summary: newBase(), snapshot: ceremony("phone", basev1.Role_ROLE_VIEWER,
			func(c *systemv1.Ceremony) { c.BaseConfirmed = true })},
		"reset":         {summary: openBase(), snapshot: paired, page: pageReset, typed: "kitc"},
		"reset buttons": {summary: openBase(), snapshot: paired, page: pageResetButtons},
		"resetting":     {summary: openBase(), snapshot: paired, resetting: true},
	}
	for what, name := range evil {
		d["evil "+what] = &desk{summary: newBase(), snapshot: ceremony(name, basev1.Role_ROLE_OWNER, nil), notice: name}
	}
	for name, d := range d {
		d.reached, d.seenAt = name != "waiting", noon
	}
	return d
}

func golden(name string) string {
	return filepath.Join("testdata", strings.ReplaceAll(name, " ", "-")+".txt")
}

func TestScreensMatchTheGoldenFiles(t *testing.T) {
	for name, d := range screens() {
		f := d.draw(noon.Add(12 * time.Second))
		got := strings.Join(f[:], "\n") + "\n"
		if *update {
			if err := os.WriteFile(golden(name), []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden(name))
		if err != nil || got != string(want) {
			t.Errorf("%s is not as in %s (-update rewrites it): %v\n%s", name, golden(name), err, got)
		}
	}
}

// unfit reports what a Linux console would not show as meant.
func unfit(f frame) string {
	for _, row := range f {
		if utf8.RuneCountInString(row) > columns {
			return "a row is too long: " + row
		}
		for _, r := range row {
			if (r < ' ' || r > '~') && r != digits.Solid && (r < 'À' || r > 'ÿ') {
				return "there is " + string(r)
			}
		}
	}
	return ""
}

// Text from the network draws nothing but its own name, and hides nothing.
func TestNamesCannotDrawOnTheScreen(t *testing.T) {
	for what, name := range evil {
		summary := openBase()
		summary.NodeName, summary.SoftwareVersion = name, name
		summary.Addresses = []string{name}
		summary.Apis[0].Kind = name
		summary.LastReset.By = name
		d := &desk{reached: true, summary: summary, seenAt: noon, notice: name, snapshot: ceremony(name, basev1.Role_ROLE_OWNER, nil)}
		if got := unfit(d.draw(noon)); got != "" {
			t.Errorf("%s, with a code: %s", what, got)
		}
		whole := d.draw(noon)
		honest := (&desk{reached: true, summary: newBase(), seenAt: noon, snapshot: ceremony("phone", basev1.Role_ROLE_OWNER, nil)}).draw(noon)
		for row := range whole {
			if strings.ContainsRune(honest[row]+whole[row], digits.Solid) && whole[row] != honest[row] {
				t.Errorf("%s: the code's row %d is %q", what, row, whole[row])
			}
		}
		for _, page := range []page{pageNone, pageReset, pageOpen} {
			d.snapshot, d.page, d.typed = &systemv1.Snapshot{}, page, name
			if got := unfit(d.draw(noon)); got != "" {
				t.Errorf("%s, on page %d: %s", what, page, got)
			}
		}
	}
	// The check itself must be able to fail.
	for what, name := range evil {
		if what == "fake" || what == "solid" {
			continue // one is safe, and quoted; the rows of the code detect the other
		}
		if unfit(frame{name}) == "" {
			t.Errorf("%s would have been let through", what)
		}
	}
}

func TestTimesAreShownInTwoUnits(t *testing.T) {
	for of, want := range map[time.Duration]string{
		0: "0 min", time.Millisecond: "1 min", time.Hour: "1 h 0 min", 7 * 24 * time.Hour: "7 d 0 h", 119 * time.Minute: "1 h 59 min",
	} {
		if got := remaining(uint64(of.Milliseconds())); got != want {
			t.Errorf("%v is %q", of, got)
		}
	}
}
