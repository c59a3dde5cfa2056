package system

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
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
	q := logQuery{table: services.Table{ownService("electrs")}}
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

func TestATextIsOneShortLineWithNothingHiddenInIt(t *testing.T) {
	for _, text := range []string{"a\nb", "a\x1b]0;title\x07", "\u202eevil", "\u0000", "é" + strings.Repeat("ü", 4096),
		strings.Repeat("x", 1<<16), "\xff\xfe", "\u2028"} {
		got := cut(plain(strings.ToValidUTF8(text, "?")), maxLogText)
		if len(got) > maxLogText || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%.20q became %.40q, %d bytes", text, got, len(got))
		}
	}
}

func FuzzAnEntryOfTheJournal(f *testing.F) {
	for _, line := range []string{entryOfAUnit, entryOfInit, entryOfBytes, entryTwice, entryOfNone,
		`{"MESSAGE":[[[1]]],"__REALTIME_TIMESTAMP":"1"}`, `{"MESSAGE":[[104,105],[1]],"__REALTIME_TIMESTAMP":"1"}`} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		e, _, err := logQuery{}.entry(line)
		if err != nil {
			return
		}
		if len(e.GetText()) > maxLogText || e.GetPriority() > 7 ||
			strings.ContainsFunc(e.GetText(), func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q: %v", line, e)
		}
		if _, err := proto.Marshal(e); err != nil {
			t.Errorf("%q: %v", line, err)
		}
	})
}

func TestTheLastLinesThatFitAreReadInOrder(t *testing.T) {
	b, m := managedBase(t)
	for i := range 1000 {
		m.say("electrs.service", fmt.Sprintf("Block %d", i))
		m.say("bitcoind.service", fmt.Sprintf("peer %d", i))
		m.say("other.service", "not ours")
	}
	m.log("electrs.service", map[string]any{"MESSAGE": "it burns", "PRIORITY": "2"})
	b.start()
	for name, c := range map[string]struct {
		request *basev1.ReadLogsRequest
		n       int
		last    string
	}{
		"all":           {&basev1.ReadLogsRequest{}, defaultLogLines, "it burns"},
		"of one":        {&basev1.ReadLogsRequest{Services: []string{"bitcoind"}, Lines: 7}, 7, "peer 999"},
		"of two":        {&basev1.ReadLogsRequest{Services: []string{"bitcoind", "electrs"}, Lines: 3}, 3, "it burns"},
		"filtered":      {&basev1.ReadLogsRequest{Contains: "BLOCK 99", Lines: 5}, 5, "Block 999"},
		"a pattern":     {&basev1.ReadLogsRequest{Contains: "Block .*"}, 0, ""},
		"grave":         {&basev1.ReadLogsRequest{Priority: proto.Uint32(3)}, 1, "it burns"},
		"since":         {&basev1.ReadLogsRequest{Since: seconds(1795723082 + 2997)}, 3, "it burns"},
		"until":         {&basev1.ReadLogsRequest{Until: seconds(1795723082 + 1), Lines: 9}, 2, "peer 0"},
		"of everything": {&basev1.ReadLogsRequest{Lines: maxLogLines}, 2001, "it burns"},
	} {
		entries, err := b.logs(c.request)
		if err != nil || len(entries) != c.n || c.n > 0 && entries[c.n-1].GetText() != c.last {
			t.Errorf("%s: %d lines, %v", name, len(entries), err)
			continue
		}
		if !slices.IsSortedFunc(entries, func(a, b *basev1.LogEntry) int { return a.GetTime().AsTime().Compare(b.GetTime().AsTime()) }) {
			t.Errorf("%s: not in order: %q", name, texts(entries))
		}
	}
}

// Whatever is asked for, journalctl is given units of the table, numbers, and words of
// our own; above all no pattern, whose parser would be one more in a root process.
func TestNoTextOfARequestReachesJournalctl(t *testing.T) {
	b, m := managedBase(t)
	b.start()
	requests := []*basev1.ReadLogsRequest{
		{Contains: "--grep=x"}, {Contains: strings.Repeat("(a+)+", 40)},
		{Services: []string{"electrs"}, Priority: proto.Uint32(7), Since: seconds(1), Until: seconds(2), Lines: 5},
		{Since: &timestamppb.Timestamp{Seconds: 253402300799, Nanos: 999999999}},
	}
	for _, name := range hostile {
		requests = append(requests, &basev1.ReadLogsRequest{Services: []string{name}},
			&basev1.ReadLogsRequest{Services: []string{"electrs", name}, Contains: shortened(name)})
	}
	for _, r := range requests {
		_, _ = b.logs(r)
	}
	table := b.config.Services
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, arguments := range m.asked {
		for _, a := range arguments {
			key, value, _ := strings.Cut(a, "=")
			_, known := table.OfUnit(value)
			_, err := strconv.ParseFloat(strings.TrimPrefix(value, "@"), 64)
			switch {
			case slices.Contains(append(slices.Clone(journalFormat), "--reverse", "--follow", "--no-tail"), a):
			case key == "--unit" && known:
			case slices.Contains([]string{"--lines", "--priority", "--since", "--until"}, key) && err == nil:
			default:
				t.Errorf("journalctl was given %q", a)
			}
		}
	}
	if len(m.asked) < 4 {
		t.Errorf("only %d questions were let through; this proves nothing", len(m.asked))
	}
}

func TestABadQuestionForLogsIsRefused(t *testing.T) {
	b, _ := managedBase(t)
	b.start()
	for name, c := range map[string]struct {
		request *basev1.ReadLogsRequest
		want    string
	}{
		"a service":    {&basev1.ReadLogsRequest{Services: []string{"sshd\n"}}, "it is one of firewall"},
		"too many":     {&basev1.ReadLogsRequest{Services: make([]string, 100)}, "100 services"},
		"lines":        {&basev1.ReadLogsRequest{Lines: maxLogLines + 1}, "10000"},
		"a priority":   {&basev1.ReadLogsRequest{Priority: proto.Uint32(8)}, "0 (emerg) to 7"},
		"a long text":  {&basev1.ReadLogsRequest{Contains: strings.Repeat("x", maxContains+1)}, "at most 200"},
		"a time":       {&basev1.ReadLogsRequest{Since: &timestamppb.Timestamp{Seconds: -1}}, "since"},
		"another time": {&basev1.ReadLogsRequest{Until: &timestamppb.Timestamp{Nanos: -1}}, "until"},
		"an end":       {&basev1.ReadLogsRequest{Until: seconds(1), Follow: true}, "no end"},
	} {
		if _, err := b.logs(c.request); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeInvalid}) ||
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhatFollowsComesWithoutAGap(t *testing.T) {
	b, m := managedBase(t)
	m.say("electrs.service", "old")
	// Between the past and what follows, something is logged.
	m.asking = func(query []string) {
		if slices.Contains(query, "--follow") {
			m.mu.Lock()
			m.asking = nil
			m.mu.Unlock()
			m.say("electrs.service", "in between")
		}
	}
	b.start()
	ctx, hangUp := context.WithCancel(t.Context())
	var got []string
	err := b.as(WhoMiddleware).Each(ctx, logsRequest(&basev1.ReadLogsRequest{Services: []string{"electrs"}, Follow: true}),
		func(reply *systemv1.SystemReply) error {
			if reply.GetLogs().GetLive() {
				got = append(got, "live")
			}
			got = append(got, texts(reply.GetLogs().GetEntries())...)
			switch got[len(got)-1] {
			case "in between":
				m.say("electrs.service", "new")
			case "new":
				hangUp()
			}
			return nil
		})
	if want := []string{"old", "live", "in between", "new"}; !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	b.readersLeave()
}

func (b *base) readersLeave() {
	b.t.Helper()
	until(b.t, "nobody reads logs any more", func() error {
		b.helper.mu.Lock()
		defer b.helper.mu.Unlock()
		if b.helper.readers != 0 || b.helper.middlewareReaders != 0 {
			return fmt.Errorf("%d do", b.helper.readers)
		}
		return nil
	})
}

func TestFollowersAreFewAndLeaveRoomForRoot(t *testing.T) {
	if maxReaders >= ipc.MaxPerUser/4 || helperclient.MaxMiddlewareReaders >= maxReaders {
		t.Errorf("%d and %d readers, and %d connections", helperclient.MaxMiddlewareReaders, maxReaders, ipc.MaxPerUser)
	}
	b, _ := managedBase(t)
	b.start()
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	live := make(chan struct{}, 100)
	follow := func(who Who) error {
		return b.as(who).Each(ctx, logsRequest(&basev1.ReadLogsRequest{Follow: true}), func(*systemv1.SystemReply) error {
			live <- struct{}{}
			return nil
		})
	}
	for range helperclient.MaxMiddlewareReaders {
		go func() { _ = follow(WhoMiddleware) }()
		<-live
	}
	if err := follow(WhoMiddleware); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeBusy}) {
		t.Errorf("one more: %v", err)
	}
	for range maxReaders - helperclient.MaxMiddlewareReaders {
		go func() { _ = follow(WhoRoot) }()
		<-live
	}
	if err := follow(WhoRoot); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeBusy}) {
		t.Errorf("one more of root's: %v", err)
	}
	hangUp()
	b.readersLeave()
}

func TestMuchOfALogIsBounded(t *testing.T) {
	b, m := managedBase(t)
	for range 3000 {
		m.say("electrs.service", strings.Repeat("x", 8000))
	}
	b.start()
	entries, err := b.logs(&basev1.ReadLogsRequest{Lines: maxLogLines})
	size := 0
	for _, e := range entries {
		size += len(e.GetText())
	}
	if err != nil || size > maxLogBytes || size < maxLogBytes/2 {
		t.Errorf("%d entries with %d bytes, %v", len(entries), size, err)
	}
}
