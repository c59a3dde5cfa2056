package system

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/harmless"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/journal"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/systemdtest"
)

func TestTheLastLinesThatFitAreReadInOrder(t *testing.T) {
	b, m := managedBase(t)
	for i := range 1000 {
		m.Say("electrs.service", fmt.Sprintf("Block %d", i))
		m.Say("bitcoind.service", fmt.Sprintf("peer %d", i))
		m.Say("other.service", "not ours")
	}
	m.Write("electrs.service", map[string]any{"MESSAGE": "it burns", "PRIORITY": "2"})
	b.start()
	for name, c := range map[string]struct {
		request *basev1.ReadLogsRequest
		n       int
		last    string
	}{
		"all":           {&basev1.ReadLogsRequest{}, journal.DefaultLines, "it burns"},
		"of one":        {&basev1.ReadLogsRequest{Services: []string{"bitcoind"}, Lines: 7}, 7, "peer 999"},
		"of two":        {&basev1.ReadLogsRequest{Services: []string{"bitcoind", "electrs"}, Lines: 3}, 3, "it burns"},
		"filtered":      {&basev1.ReadLogsRequest{Contains: "BLOCK 99", Lines: 5}, 5, "Block 999"},
		"a pattern":     {&basev1.ReadLogsRequest{Contains: "Block .*"}, 0, ""},
		"grave":         {&basev1.ReadLogsRequest{Priority: proto.Uint32(3)}, 1, "it burns"},
		"since":         {&basev1.ReadLogsRequest{Since: seconds(began + 2997)}, 3, "it burns"},
		"until":         {&basev1.ReadLogsRequest{Until: seconds(began + 1), Lines: 9}, 2, "peer 0"},
		"of everything": {&basev1.ReadLogsRequest{Lines: journal.MaxLines}, 2001, "it burns"},
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
			&basev1.ReadLogsRequest{Services: []string{"electrs", name}, Contains: harmless.Word(name)})
	}
	for _, r := range requests {
		_, _ = b.logs(r)
	}
	fixed := []string{"--quiet", "--no-pager", "--merge", "--output=json",
		"--output-fields=MESSAGE,PRIORITY,_SYSTEMD_UNIT,UNIT,OBJECT_SYSTEMD_UNIT,_PID", "--reverse", "--follow", "--no-tail"}
	table := b.config.Services
	asked := m.Asked()
	for _, arguments := range asked {
		for _, a := range arguments {
			key, value, _ := strings.Cut(a, "=")
			_, known := table.OfUnit(value)
			_, err := strconv.ParseFloat(strings.TrimPrefix(value, "@"), 64)
			switch {
			case slices.Contains(fixed, a):
			case key == "--unit" && known:
			case slices.Contains([]string{"--lines", "--priority", "--since", "--until"}, key) && err == nil:
			default:
				t.Errorf("journalctl was given %q", a)
			}
		}
	}
	if len(asked) < 4 {
		t.Errorf("only %d questions were let through; this proves nothing", len(asked))
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
		"lines":        {&basev1.ReadLogsRequest{Lines: journal.MaxLines + 1}, "10000"},
		"a priority":   {&basev1.ReadLogsRequest{Priority: proto.Uint32(8)}, "0 (emerg) to 7"},
		"a long text":  {&basev1.ReadLogsRequest{Contains: strings.Repeat("x", journal.MaxContains+1)}, "at most 200"},
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

func TestFollowedLogsHaveNoGap(t *testing.T) {
	b, m := managedBase(t)
	m.Say("electrs.service", "old")
	// Between the past and what follows, something is logged.
	m.OnQuestion(func(query []string) {
		if slices.Contains(query, "--follow") {
			m.OnQuestion(nil)
			m.Say("electrs.service", "in between")
		}
	})
	b.start()
	ctx, hangUp := context.WithCancel(t.Context())
	var got []string
	err := b.as(caller.Middleware).Each(ctx, logsRequest(&basev1.ReadLogsRequest{Services: []string{"electrs"}, Follow: true}),
		func(reply *systemv1.SystemReply) error {
			if reply.GetLogs().GetLive() {
				got = append(got, "live")
			}
			got = append(got, texts(reply.GetLogs().GetEntries())...)
			switch got[len(got)-1] {
			case "in between":
				m.Say("electrs.service", "new")
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
	until(b.t, "all readers of logs have left", func() error {
		for n := range journal.MaxReaders {
			give, err := b.helper.journal.Readers.Take(n < helperclient.MaxMiddlewareReaders)
			if err != nil {
				return err
			}
			defer give()
		}
		return nil
	})
}

func TestFollowersAreFewAndLeaveRoomForRoot(t *testing.T) {
	if journal.MaxReaders >= ipc.MaxPerUser/4 || helperclient.MaxMiddlewareReaders >= journal.MaxReaders {
		t.Errorf("%d and %d readers, and %d connections", helperclient.MaxMiddlewareReaders, journal.MaxReaders, ipc.MaxPerUser)
	}
	b, _ := managedBase(t)
	b.start()
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	live := make(chan struct{}, 100)
	follow := func(who caller.Who) error {
		return b.as(who).Each(ctx, logsRequest(&basev1.ReadLogsRequest{Follow: true}), func(*systemv1.SystemReply) error {
			live <- struct{}{}
			return nil
		})
	}
	for range helperclient.MaxMiddlewareReaders {
		go func() { _ = follow(caller.Middleware) }()
		<-live
	}
	if err := follow(caller.Middleware); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeBusy}) {
		t.Errorf("one more: %v", err)
	}
	for range journal.MaxReaders - helperclient.MaxMiddlewareReaders {
		go func() { _ = follow(caller.Root) }()
		<-live
	}
	if err := follow(caller.Root); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeBusy}) {
		t.Errorf("one more of root's: %v", err)
	}
	hangUp()
	b.readersLeave()
}

func TestMuchOfALogIsBounded(t *testing.T) {
	b, m := managedBase(t)
	for range 3000 {
		m.Say("electrs.service", strings.Repeat("x", 8000))
	}
	b.start()
	entries, err := b.logs(&basev1.ReadLogsRequest{Lines: journal.MaxLines})
	size := 0
	for _, e := range entries {
		size += len(e.GetText())
	}
	if err != nil || size > journal.MaxBytes || size < journal.MaxBytes/2 {
		t.Errorf("%d entries with %d bytes, %v", len(entries), size, err)
	}
}

// An entry may have a field 1024 times, so a line can be too long all the same. A request for the
// last line and what follows gets that, and not the whole journal.
func TestALineThatIsTooLongDoesNotBringTheWholeJournalBack(t *testing.T) {
	b, m := managedBase(t)
	for n := range 50 {
		m.Say("electrs.service", fmt.Sprint("old ", n))
	}
	m.Write("electrs.service", map[string]any{"MESSAGE": "x", systemdtest.TooLong: true,
		"__REALTIME_TIMESTAMP": fmt.Sprint(time.Now().UnixMicro())})
	b.start()
	m.OnQuestion(func(query []string) {
		if slices.Contains(query, "--follow") {
			m.OnQuestion(nil)
			m.Write("electrs.service", map[string]any{"MESSAGE": "new", "__REALTIME_TIMESTAMP": fmt.Sprint(time.Now().UnixMicro())})
		}
	})
	done := errors.New("done")
	var got []string
	err := b.as(caller.Middleware).Each(t.Context(), logsRequest(
		&basev1.ReadLogsRequest{Services: []string{"electrs"}, Lines: 1, Follow: true}),
		func(reply *systemv1.SystemReply) error {
			got = append(got, texts(reply.GetLogs().GetEntries())...)
			if slices.Contains(got, "new") {
				return done
			}
			return nil
		})
	if !errors.Is(err, done) || slices.ContainsFunc(got, func(text string) bool { return strings.HasPrefix(text, "old") }) {
		t.Errorf("%q, %v", got, err)
	}
	b.readersLeave()
}
