package system

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/changerecorder"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/ledger"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/server"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
)

// verbs is the table, of a helper that does nothing.
var verbs = (&Helper{keeper: &ledger.Keeper{}}).verbs()

var verbField = (&systemv1.SystemRequest{}).ProtoReflect().Descriptor().Oneofs().ByName("verb")

func TestEachVerbHasARow(t *testing.T) {
	fields := verbField.Fields()
	if len(verbs) != fields.Len() {
		t.Errorf("%d verbs have %d rows", fields.Len(), len(verbs))
	}
	for i := range fields.Len() {
		v, ok := verbs[uint16(fields.Get(i).Number())]
		switch {
		case !ok:
			t.Errorf("the verb %q has no row in verbs.go", fields.Get(i).Name())
			continue
		case v.May == 0 || v.May.Has(0) || v.Limit == 0 || v.Limit > ipc.MaxMessageSize || v.Holds < v.Limit:
			t.Errorf("the row of %q has no callers or no bounds: %+v", v.Name, v)
		}
		for who, most := range server.CallerBounds {
			if v.Closes {
				most = server.ClosingBounds
			}
			work := most.Work
			if v.Owners && most.OwnersWork > 0 {
				work = most.OwnersWork
			}
			if v.May.Has(who) && (v.Holds > most.Holds-most.Kept || float64(v.Work) > work*server.BurstTime.Seconds()) {
				t.Errorf("the budget of the %s never has room for %q", who, v.Name)
			}
		}
		if v.Record == nil || v.Name == "authority" {
			continue
		}
		// An empty request must not be the end of the helper.
		request := &systemv1.SystemRequest{}
		m := request.ProtoReflect()
		m.Set(fields.Get(i), m.NewField(fields.Get(i)))
		word := v.Record.Word
		if v.Record.What != nil {
			word = v.Record.What(request)
		}
		if _, isWord := changelog.Words[word]; !isWord {
			t.Errorf("the verb %q is recorded as %q, which is no word of the log", v.Name, word)
		}
		if v.Record.Detail != nil {
			_ = v.Record.Detail(request, nil) + v.Record.Detail(request, &systemv1.SystemReply{})
		}
		if v.Record.Signed != nil {
			_ = v.Record.Signed(request)
		}
	}
}

// kindOf returns the kind of a verb by its name.
func kindOf(name string) uint16 {
	for kind, v := range verbs {
		if v.Name == name {
			return kind
		}
	}
	panic(name)
}

// manyApps is a local_change of a size, with as many empty Apps as fit.
func manyApps(size int) []byte {
	const app, posture, localChange = 2, 1, 14
	var apps []byte
	for len(apps) < size-24 {
		apps = protowire.AppendBytes(protowire.AppendTag(apps, app, protowire.BytesType), nil)
	}
	b := protowire.AppendBytes(protowire.AppendTag(nil, posture, protowire.BytesType), apps)
	return protowire.AppendBytes(protowire.AppendTag(nil, localChange, protowire.BytesType), b)
}

// allocated is how many bytes do has allocated.
func allocated(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// The attack: the Middleware sends a change that only root may make, with half a million
// empty Apps, which take 60 times their size once they are parsed.
func TestACallerWithoutTheRightIsRefusedBeforeAnythingIsParsed(t *testing.T) {
	b := newBase(t)
	b.start()
	flood := manyApps(ipc.MaxMessageSize)
	ask := func(who caller.Who) (code string, took uint64) {
		read := func() (*systemv1.SystemRequest, error) { return server.Parse(kindOf("local_change"), flood) }
		took = allocated(func() {
			_ = b.helper.server.Handle(t.Context(), who,
				server.Incoming{Kind: kindOf("local_change"), Size: len(flood), Life: t.Context(), Read: read},
				func(reply *systemv1.SystemReply) error {
					code = reply.GetErrorCode()
					return nil
				})
		})
		return code, took
	}
	if code, took := ask(caller.Middleware); code != string(helperclient.CodePermission) || took > 1<<20 {
		t.Errorf("answered with %q, which took %d bytes", code, took)
	}
	// Root may ask, but not for so much.
	if code, took := ask(caller.Root); code != string(helperclient.CodeMalformed) || took > 1<<20 {
		t.Errorf("root is answered with %q, which took %d bytes", code, took)
	}
	// Broken: parsed first.
	if took := allocated(func() { _, _ = server.Parse(kindOf("local_change"), flood) }); took < 40<<20 {
		t.Errorf("parsing takes %d bytes only; this attack proves nothing", took)
	}
	// It says that it is something else.
	request := &systemv1.SystemRequest{}
	err := b.helper.server.Handle(t.Context(), caller.Middleware,
		server.Incoming{Kind: kindOf("get_machine"), Size: 100, Life: t.Context(), Read: func() (*systemv1.SystemRequest, error) {
			return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_LocalChange{LocalChange: &systemv1.LocalChange{}}}, nil
		}}, func(reply *systemv1.SystemReply) error {
			if reply.GetErrorCode() != string(helperclient.CodeMalformed) {
				t.Errorf("a change in disguise is answered with %v", reply)
			}
			return nil
		})
	if err != nil || proto.Size(request) != 0 {
		t.Error(err)
	}
}

// The attack: the same flood, announced as a piece of an update, which may be that long,
// is allowed, and is charged for bytes that nobody parses.
func TestARequestAnnouncedAsAnotherVerbIsNotParsed(t *testing.T) {
	piece := verbs[kindOf("update_piece")]
	flood := manyApps(piece.Limit)
	// Broken: the verb is compared once it is parsed.
	if took := allocated(func() { _ = proto.Unmarshal(flood, &systemv1.SystemRequest{}) }); took < uint64(5*piece.Holds) {
		t.Errorf("parsing takes %d bytes only; this attack proves nothing", took)
	}
	hidden := func(b []byte) []byte { // behind a piece, so that it is the last one that counts
		whole := protowire.AppendBytes(protowire.AppendTag(nil, protowire.Number(piece.Number), protowire.BytesType), nil)
		return append(whole, b...)
	}
	for name, b := range map[string][]byte{"alone": flood, "behind a piece": hidden(flood)} {
		var err error
		took := allocated(func() { _, err = server.Parse(uint16(piece.Number), b) })
		if !errors.Is(err, &helperclient.Error{Code: helperclient.CodeMalformed}) || took > 64<<10 {
			t.Errorf("%s: %v, which took %d bytes", name, err, took)
		}
	}
	request := &systemv1.SystemRequest{AppId: "0123456789abcdef",
		Verb: &systemv1.SystemRequest_UpdatePiece{UpdatePiece: &systemv1.UpdatePiece{Data: []byte{1}}}}
	b, err := proto.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := server.Parse(uint16(piece.Number), b); err != nil || !proto.Equal(got, request) {
		t.Errorf("an honest piece: %v, %v", got, err)
	}
}

// The memory in a row is enough for each request that fits its limit, however it is filled.
func TestTheWorstRequestHoldsNoMoreThanItsRowSays(t *testing.T) {
	fields := verbField.Fields()
	for i := range fields.Len() {
		kind := uint16(fields.Get(i).Number())
		v := verbs[kind]
		for _, message := range worst(fields.Get(i).Message(), v.Limit-8) {
			b := protowire.AppendBytes(protowire.AppendTag(nil, fields.Get(i).Number(), protowire.BytesType), message)
			if len(b) > v.Limit {
				t.Fatalf("%s: %d bytes do not fit its row", v.Name, len(b))
			}
			if took := allocated(func() { _, _ = server.Parse(kind, b) }); took > uint64(v.Holds) {
				t.Errorf("%s: %d bytes take %d, and the row says %d: %x…", v.Name, len(b), took, v.Holds, b[:min(len(b), 32)])
			}
		}
	}
	// Broken: a document in a row for short requests.
	change := kindOf("local_change")
	if took := allocated(func() { _, _ = server.Parse(change, manyApps(verbs[change].Limit)) }); took < uint64(short.Holds) {
		t.Errorf("the worst change takes %d bytes only; this attack proves nothing", took)
	}
}

// worst makes messages of a kind that are filled up to a size. Each repeats one empty field at any depth, or
// has one long text, or has fields that are unknown.
func worst(kind protoreflect.MessageDescriptor, size int) (all [][]byte) {
	const unknown = 5000
	fill := func(element []byte) {
		all = append(all, bytes.Repeat(element, max(0, size)/len(element)))
	}
	fill(protowire.AppendVarint(protowire.AppendTag(nil, unknown, protowire.VarintType), 0))
	for i := range kind.Fields().Len() {
		field := kind.Fields().Get(i)
		tag := protowire.AppendTag(nil, field.Number(), protowire.BytesType)
		switch {
		case field.Message() != nil:
			fill(protowire.AppendBytes(tag, nil))
			for _, inner := range worst(field.Message(), size-8) {
				all = append(all, protowire.AppendBytes(tag, inner))
			}
		case field.Kind() == protoreflect.StringKind || field.Kind() == protoreflect.BytesKind:
			fill(protowire.AppendBytes(tag, nil))
			all = append(all, protowire.AppendBytes(tag, bytes.Repeat([]byte("a"), size-8)))
		}
	}
	return all
}

// The budgets bind before the unit's limit does: a limit that an attacker reaches would be a way to kill
// the helper.
func TestTheBudgetsFitIntoTheHelpersMemoryTwice(t *testing.T) {
	sum := 0
	for _, bounds := range server.CallerBounds {
		sum += bounds.Holds + server.ClosingBounds.Holds
	}
	unit, err := os.ReadFile("../../../packaging/root/usr/lib/systemd/system/bitbox-base-system.service")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(unit), "\nMemoryMax=")
	megabytes, err := strconv.Atoi(strings.SplitN(rest, "M\n", 2)[0])
	if err != nil || megabytes<<20 < 2*sum {
		t.Errorf("MemoryMax is %d MiB (%v), and twice the budgets are %d MiB", megabytes, err, 2*sum>>20)
	}
}

// A caller that has used its budget up waits; others and what closes do not.
func TestABudgetBindsItsCallerAndNotWhatCloses(t *testing.T) {
	all := server.NewBudgets(nil)
	busy := server.Verb{
		Name: "busy", Size: server.Size{Holds: server.CallerBounds[caller.Middleware].Holds}, Record: &changerecorder.Verb{},
	}
	leave, err := all[caller.Middleware].Enter(t.Context(), busy)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	refused := make(chan error)
	go func() {
		_, err := all[caller.Middleware].Enter(ctx, busy)
		refused <- err
	}()
	if _, err := all[caller.Middleware].Enter(t.Context(), server.Verb{Closes: true, Size: list}); err != nil {
		t.Errorf("what closes: %v", err)
	}
	if _, err := all[caller.Root].Enter(t.Context(), server.Verb{Size: list}); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	cancel()
	if err := <-refused; !errors.Is(err, context.Canceled) {
		t.Errorf("the second call: %v", err)
	}
	leave()
	if _, err := all[caller.Middleware].Enter(t.Context(), busy); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	// Programs: a burst, then so many a second.
	programs := server.NewBudget(server.Bounds{Holds: 1, Calls: 1000, Work: 10})
	for n := range 40 {
		if _, err := programs.Enter(t.Context(), server.Verb{Work: 1}); err != nil {
			t.Fatalf("program %d: %v", n, err)
		}
	}
	gone, hangUp := context.WithCancel(t.Context())
	hangUp()
	if _, err := programs.Enter(gone, server.Verb{Work: 40}); !errors.Is(err, context.Canceled) {
		t.Errorf("forty more at once: %v", err)
	}
}

// The attack: the Middleware sets another time zone, again and again. Each time systemd reads all units again, for up to a
// second, and closes nothing meanwhile.
func TestAFloodOfTimeZonesLeavesSystemdTimeToClose(t *testing.T) {
	zone := verbs[kindOf("set_time_zone")]
	reloads := func(v server.Verb) (done int) {
		synctest.Test(t, func(t *testing.T) {
			budget := server.NewBudget(server.CallerBounds[caller.Middleware])
			for begun := time.Now(); time.Since(begun) < time.Minute; {
				if leave, err := budget.Enter(t.Context(), v); err == nil {
					leave()
					done++
				}
			}
		})
		return done
	}
	const most = 30 // every other second
	if done := reloads(zone); done > most {
		t.Errorf("systemd reloads %d times in a minute", done)
	}
	zone.Work = 1 // broken: counted as the one program that it starts
	if done := reloads(zone); done <= most {
		t.Errorf("without its cost it reloads %d times; this attack proves nothing", done)
	}
}

// The attack: Apps ask for audits and updates at once, again and again, so that the programs
// of the Middleware are used up. A verb that starts no program, such as an owner's
// posture, goes on. Once the Apps have stopped, verbs that start one go on soon.
func TestAFloodForProgramsHoldsUpNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := server.NewBudget(server.CallerBounds[caller.Middleware])
		audit, submit, lift := verbs[kindOf("run_audit")], verbs[kindOf("submit")], verbs[kindOf("lift_ban")]
		if audit.Work == 0 || submit.Work != 0 || lift.Work == 0 {
			t.Fatal("the table has changed; this attack proves nothing")
		}
		var asking sync.WaitGroup
		refused := atomic.Int64{}
		for range ipc.MaxPerUser {
			asking.Go(func() {
				leave, err := budget.Enter(t.Context(), server.Verb{Work: audit.Work})
				if err != nil {
					refused.Add(1)
					return
				}
				leave()
			})
		}
		synctest.Wait()
		began := time.Now()
		if leave, err := budget.Enter(t.Context(), submit); err != nil || time.Since(began) > 0 {
			t.Errorf("an owner's posture during the flood: %v after %s", err, time.Since(began))
		} else {
			leave()
		}
		asking.Wait()
		if refused.Load() == 0 {
			t.Error("nobody was refused; this attack proves nothing")
		}
		if leave, err := budget.Enter(t.Context(), lift); err != nil {
			t.Errorf("an owner's order after the flood: %v", err)
		} else {
			leave()
		}
	})
}

// The attack: requests that can only be refused, without end. They take no budget, and would cost
// the helper more than those that are answered.
func TestRefusalsCountAsCalls(t *testing.T) {
	attack := func(t *testing.T, calls float64, lasts time.Duration) (refused int64) {
		synctest.Test(t, func(t *testing.T) {
			bounds := map[caller.Who]server.Bounds{caller.Middleware: {Calls: calls}}
			s := server.New(verbs, bounds, nil, nil, slog.New(slog.DiscardHandler))
			forbidden := server.Incoming{Kind: kindOf("local_change"), Life: t.Context()}
			ctx, stop := context.WithTimeout(t.Context(), lasts)
			defer stop()
			var count atomic.Int64
			var asking sync.WaitGroup
			for range ipc.MaxPerUser {
				asking.Go(func() {
					for ctx.Err() == nil {
						_ = s.Handle(ctx, caller.Middleware, forbidden, func(reply *systemv1.SystemReply) error {
							if code := reply.GetErrorCode(); code != string(helperclient.CodePermission) {
								t.Errorf("answered with %q", code)
							}
							count.Add(1)
							return nil
						})
					}
				})
			}
			asking.Wait()
			refused = count.Load()
		})
		return refused
	}
	const lasts = 10 * time.Second
	calls := server.CallerBounds[caller.Middleware].Calls
	// Those that wait in vain are refused as well, every two seconds.
	most := int64(calls*(lasts+server.BurstTime).Seconds()) + 6*ipc.MaxPerUser
	if refused := attack(t, calls, lasts); refused > most {
		t.Errorf("%d requests were refused in %s, and not %d", refused, lasts, most)
	}
	// Broken: without that bound.
	if refused := attack(t, 10*calls, lasts); refused <= most {
		t.Errorf("without the bound %d are refused; this attack proves nothing", refused)
	}
}

// The attack: some operators' Apps follow logs and have audits run, all the time. They
// leave room for the orders of an owner, which wait for none of them.
func TestReadersLeaveRoomForChangesOfOwners(t *testing.T) {
	attack := func(t *testing.T, bounds server.Bounds) (refused []string) {
		synctest.Test(t, func(t *testing.T) {
			budget := server.NewBudget(bounds)
			ctx, stop := context.WithCancel(t.Context())
			var asking sync.WaitGroup
			for n := range 64 {
				asking.Go(func() {
					for ctx.Err() == nil {
						v := verbs[kindOf([]string{"read_logs", "run_audit", "get_posture"}[n%3])]
						leave, err := budget.Enter(ctx, v)
						if err != nil {
							continue
						}
						select {
						case <-time.After(time.Minute): // it takes long
						case <-ctx.Done():
						}
						leave()
					}
				})
			}
			time.Sleep(time.Minute / 2)
			for _, name := range []string{"submit", "confirm_try", "order_pairing", "lift_ban", "fix_finding", "begin_update",
				"update_piece", "finish_update"} {
				began := time.Now()
				leave, err := budget.Enter(ctx, verbs[kindOf(name)])
				switch took := time.Since(began); {
				case err != nil:
					refused = append(refused, name)
					continue
				case took > 0:
					refused = append(refused, name+" at once")
				}
				leave()
			}
			stop()
			asking.Wait()
		})
		return refused
	}
	bounds := server.CallerBounds[caller.Middleware]
	if refused := attack(t, bounds); len(refused) > 0 {
		t.Errorf("refused: %v", refused)
	}
	for what, broken := range map[string]server.Bounds{
		"memory":   {Holds: bounds.Holds, Calls: bounds.Calls, Work: bounds.Work, OwnersWork: bounds.OwnersWork},
		"programs": {Holds: bounds.Holds, Calls: bounds.Calls, Work: bounds.Work, Kept: bounds.Kept},
	} {
		if attack(t, broken) == nil {
			t.Errorf("nothing is refused though no %s are kept; this attack proves nothing", what)
		}
	}
}
