package system

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/factoryreset"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/server"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// acts are all verbs that the log of changes records, each with a request; but for the one
// that only follows what systemd does (TestTheLogIsRightWhenACallerLeaves). The table is
// complete: a verb without a row fails the test.
var acts = map[string]func(b *base, a *app) *systemv1.SystemRequest{
	"authority": func(*base, *app) *systemv1.SystemRequest {
		return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Authority{Authority: &systemv1.AuthorityRequest{
			Verb: &systemv1.AuthorityRequest_OpenWindow{OpenWindow: &systemv1.OpenWindow{}}}}}
	},
	"submit": func(_ *base, a *app) *systemv1.SystemRequest {
		return submitRequest(posture.SignDocument(a.draft(false, open), a.seed))
	},
	"confirm_try": func(b *base, a *app) *systemv1.SystemRequest {
		if err := a.submitSigned(posture.SignDocument(a.draft(true, open), a.seed)); err != nil {
			b.t.Fatal(err)
		}
		return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ConfirmTry{ConfirmTry: &systemv1.ConfirmTry{
			Confirmation:  posture.SignConfirmation(a.look().Confirmation(a.challenge()), a.seed),
			ConnectedAtMs: uint64(b.config.Clock().Milliseconds())}}}
	},
	"restrict": func(*base, *app) *systemv1.SystemRequest { return restrictRequest(lockdown()) },
	"local_change": func(_ *base, a *app) *systemv1.SystemRequest {
		p, revision := a.look().Posture()
		open(&p, revision+1)
		return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_LocalChange{LocalChange: &systemv1.LocalChange{
			Change: &systemv1.LocalChange_Posture{Posture: p.Proto()}}}}
	},
	"factory_reset": func(b *base, a *app) *systemv1.SystemRequest {
		return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_FactoryReset{FactoryReset: &systemv1.FactoryReset{
			By: &systemv1.FactoryReset_Order{Order: a.order(b.helper.Effective().NodeName)}}}}
	},
	"order_pairing":  func(_ *base, a *app) *systemv1.SystemRequest { return orderRequest(a.letIn(123456, operator)) },
	"answer_pairing": func(_ *base, a *app) *systemv1.SystemRequest { return answerRequest(a.letIn(123456, operator)) },
	"lift_ban": func(_ *base, a *app) *systemv1.SystemRequest {
		order := posture.SignLiftBan(a.look().LiftBanOrder(netip.MustParseAddr("192.0.2.7"), a.challenge()), a.seed)
		lift := &systemv1.LiftBan{By: &systemv1.LiftBan_Order{Order: order}}
		return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_LiftBan{LiftBan: lift}}
	},
	"change_node_settings": func(_ *base, a *app) *systemv1.SystemRequest { return nodeRequest(a.nodeOrder(signet)) },
	"fix_finding": func(*base, *app) *systemv1.SystemRequest {
		return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_FixFinding{FixFinding: &systemv1.FixFinding{Id: "open-port"}}}
	},
	"finish_update": func(*base, *app) *systemv1.SystemRequest {
		return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_FinishUpdate{FinishUpdate: &systemv1.FinishUpdate{}}}
	},
	"start_other_slot": func(*base, *app) *systemv1.SystemRequest {
		return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_StartOtherSlot{StartOtherSlot: &systemv1.StartOtherSlot{}}}
	},
	"finish_bitcoin_core": func(*base, *app) *systemv1.SystemRequest {
		return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_FinishBitcoinCore{FinishBitcoinCore: &systemv1.FinishBitcoinCore{}}}
	},
	"order_rebuild": func(_ *base, a *app) *systemv1.SystemRequest {
		order := a.look().RebuildOrder(systemv1.RebuildChain_WAY_RESYNC, a.challenge())
		return rebuildRequest(posture.SignNodeOrder(order, a.seed))
	},
	"use_disk": func(_ *base, a *app) *systemv1.SystemRequest {
		order := a.look().DiskOrder(&basev1.Disk{Id: strings.Repeat("a1", 16)}, false, false, a.challenge())
		use := &systemv1.UseDisk{Order: posture.SignDiskOrder(order, a.seed)}
		return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_UseDisk{UseDisk: use}}
	},
	"change_service": func(*base, *app) *systemv1.SystemRequest {
		return changeRequest("electrs", basev1.ServiceAction_SERVICE_ACTION_RESTART)
	},
	"set_time_zone": func(*base, *app) *systemv1.SystemRequest {
		return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_SetTimeZone{SetTimeZone: &systemv1.SetTimeZone{Name: "Europe/Zurich"}}}
	},
	"reboot":    func(*base, *app) *systemv1.SystemRequest { return rebootRequest() },
	"power_off": func(*base, *app) *systemv1.SystemRequest { return powerOffRequest() },
}

// outcome is what the log has of an act whose caller leaves when its request was read, or
// stays. A broken helper ends the act with its caller.
func outcome(t *testing.T, name string, leaves, broken bool) string {
	t.Helper()
	b, _ := managedBase(t)
	b.world.Ban(bruteforce.Ban{Jail: "sshd", Addr: netip.MustParseAddr("192.0.2.7"), Since: time.Now(), Until: time.Now().Add(time.Hour)})
	b.start()
	defer b.stop()
	a := b.pair(b.as(caller.Middleware), "Laptop", owner)
	b.settled()
	request := acts[name](b, a)
	before := len(b.logged())
	who := caller.Middleware
	if v := verbs[helperclient.Kind(request)]; !v.May.Has(who) || name == "authority" {
		who = caller.Root
	}
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	life := t.Context()
	if broken {
		life = ctx
	}
	_ = b.helper.server.Handle(ctx, who, server.Incoming{Kind: helperclient.Kind(request), Size: proto.Size(request), Life: life,
		Read: func() (*systemv1.SystemRequest, error) {
			if leaves {
				leave()
			}
			return request, nil
		}}, func(*systemv1.SystemReply) error { return ctx.Err() })
	if name == "factory_reset" { // it ends the log
		_, ordered := factoryreset.Ordered(b.directory)
		return fmt.Sprintf("ordered: %v", ordered)
	}
	var lines []string
	for _, e := range b.logged()[before:] {
		lines = append(lines, line(e)+" "+e.GetFailure())
		for _, of := range []string{"context canceled", "deadline exceeded", "exit status", "no such file"} {
			if !broken && strings.Contains(e.GetFailure()+e.GetDetail(), of) {
				t.Errorf("%s: the log has %v", name, e)
			}
		}
	}
	return strings.Join(lines, "\n")
}

// The log has the same of an act whether its caller stays, or leaves as soon as it has asked.
func TestTheLogHasTheSameWhetherACallerStaysOrLeaves(t *testing.T) {
	for _, v := range verbs {
		if (v.Record != nil && !v.Follows) != (acts[v.Name] != nil) {
			t.Errorf("the verb %q has a row here: %v; it is recorded: %v", v.Name, acts[v.Name] != nil, v.Record != nil)
		}
	}
	different := 0 // acts that a broken helper, which ends them with their caller, logs in another way
	for name := range acts {
		stays, leaves := outcome(t, name, false, false), outcome(t, name, true, false)
		t.Logf("%s: %s", name, stays)
		if stays != leaves || stays == "" {
			t.Errorf("%s: the log has %q, and %q when the caller leaves", name, stays, leaves)
		}
		if different == 0 && outcome(t, name, true, true) != stays {
			different++
		}
	}
	if different == 0 {
		t.Error("acts that end with their caller are logged the same; this attack proves nothing")
	}
}
