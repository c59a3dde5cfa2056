package journal

import (
	"strings"
	"testing"
	"unicode"

	"google.golang.org/protobuf/proto"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
)

// Recorded from systemd 252, `journalctl --output=json`.
const (
	entryOfAUnit = `{"__REALTIME_TIMESTAMP":"1795723083173074","PRIORITY":"5","__MONOTONIC_TIMESTAMP":"1068892237","MESSAGE":"Server startup complete.","_BOOT_ID":"15cdbf97fe914988a380449755852495","_SYSTEMD_UNIT":"electrs.service","__CURSOR":"s=5a;i=67"}`
	entryOfInit  = `{"__REALTIME_TIMESTAMP":"1795723083173075","PRIORITY":"6","MESSAGE":"Started electrs.","_PID":"1","_SYSTEMD_UNIT":"init.scope","UNIT":"electrs.service","__CURSOR":"s=5a;i=68"}`
	entryOfBytes = `{"__REALTIME_TIMESTAMP":"1795723083173076","MESSAGE":[104,105,27,91,50,74,255],"_SYSTEMD_UNIT":"electrs.service"}`
	entryTwice   = `{"__REALTIME_TIMESTAMP":"1795723083173076","MESSAGE":["first","second"],"PRIORITY":["3","4"],"_SYSTEMD_UNIT":"electrs.service"}`
	entryOfOurs  = `{"__REALTIME_TIMESTAMP":"1795723083173076","MESSAGE":"time=2026-11-26T20:38:23.100Z level=INFO msg=\"time=2026 \"","_SYSTEMD_UNIT":"electrs.service"}`
	entryOfNone  = `{"__REALTIME_TIMESTAMP":"1795723083173076","MESSAGE":null,"_SYSTEMD_UNIT":"electrs.service"}`
)

func TestAnEntryOfTheJournalIsReadAndMadeHarmless(t *testing.T) {
	q := Query{table: services.Table{{Name: "electrs", Unit: "electrs.service"}}}
	for _, c := range []struct {
		line, text string
		priority   uint32
	}{
		{entryOfAUnit, "Server startup complete.", 5}, {entryOfInit, "Started electrs.", 6}, {entryOfBytes, "hi?[2J?", 6},
		{entryTwice, "first second", 3}, {entryOfOurs, `level=INFO msg="time=2026 "`, 6}, {entryOfNone, noText, 6},
	} {
		e, r, err := q.entry([]byte(c.line))
		if err != nil || e.GetText() != c.text || e.GetPriority() != c.priority || e.GetService() != "electrs" ||
			e.GetTime().GetSeconds() != 1795723083 || r.Microtime == 0 {
			t.Errorf("%s: %v, %v", c.line, e, err)
		}
	}
	if _, _, err := q.entry([]byte("{")); err == nil {
		t.Error("half a line was read")
	}
	if e, _, err := q.entry(nil); err != nil || !strings.Contains(e.GetText(), "too long") {
		t.Errorf("a line that is too long: %v, %v", e, err)
	}
}

func FuzzAnEntryOfTheJournal(f *testing.F) {
	for _, line := range []string{entryOfAUnit, entryOfInit, entryOfBytes, entryTwice, entryOfNone,
		`{"MESSAGE":[[[1]]],"__REALTIME_TIMESTAMP":"1"}`, `{"MESSAGE":[[104,105],[1]],"__REALTIME_TIMESTAMP":"1"}`} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		e, _, err := Query{}.entry(line)
		if err != nil {
			return
		}
		if len(e.GetText()) > maxText || e.GetPriority() > 7 ||
			strings.ContainsFunc(e.GetText(), func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q: %v", line, e)
		}
		if _, err := proto.Marshal(e); err != nil {
			t.Errorf("%q: %v", line, err)
		}
	})
}
