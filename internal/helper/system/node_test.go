package system

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/nodeorders"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/coretest"
)

func rebuildRequest(order []byte) *systemv1.SystemRequest {
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_OrderRebuild{OrderRebuild: &systemv1.OrderRebuild{Order: order}}}
}

// core is a Base whose builder trusts some people, and a Middleware that brings it releases.
type core struct {
	*base
	*coretest.Keys
	app        *app
	middleware helperclient.Client
	place      string
}

func newCore(t *testing.T) *core {
	t.Helper()
	b, systemd := managedBase(t)
	c := &core{base: b, Keys: coretest.New(t), place: nodePlace(b.directory, "bitcoin-core")}
	list := c.List(coretest.Builders...)
	systemd.OnStart(func(unit string) {
		if unit != nodeorders.Unit {
			return
		}
		if err := nodeorders.Install(context.Background(), b.config.NodeIncoming, list, "amd64", c.place); err != nil {
			t.Error(err)
		}
	})
	b.start()
	c.app = b.pair(b.as(caller.Middleware), "Laptop", owner)
	c.middleware = helperclient.Client{Port: b.as(caller.Middleware)}
	b.settled()
	return c
}

// brought is what a Middleware sends of a release.
type brought struct {
	archive, sums, signatures, order []byte
}

// release makes a release of a version, and the owner's order to install it.
func (c *core) release(version string, signers ...string) brought {
	archive := coretest.Archive(c.t, coretest.Programs(version)...)
	sums := coretest.Sums(coretest.Name(version), archive)
	return brought{archive, sums, c.Sign(sums, signers...), c.order(coretest.Name(version), sha256.Sum256(archive), c.app.seed)}
}

func (c *core) order(name string, hash [32]byte, seed posture.AppSeed) []byte {
	return posture.SignNodeOrder(c.app.look().InstallOrder(name, hash, c.app.challenge()), seed)
}

// bring uploads a release. between is called before the end.
func (c *core) bring(r brought, between func(finish *systemv1.FinishBitcoinCore)) (*systemv1.BitcoinCoreInstalled, error) {
	ctx := c.t.Context()
	reply, err := c.middleware.Do(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_BeginBitcoinCore{
		BeginBitcoinCore: &systemv1.BeginBitcoinCore{Order: r.order, Sums: r.sums, Signatures: r.signatures, Size: uint64(len(r.archive))}}}, nil)
	if err != nil {
		return nil, err
	}
	id := reply.GetUpdateBegan().GetUpload()
	for offset, piece := range slices.Collect(slices.Chunk(r.archive, 200)) {
		_, err := c.middleware.Do(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_BitcoinCorePiece{
			BitcoinCorePiece: &systemv1.BitcoinCorePiece{Upload: id, Offset: uint64(offset) * 200, Data: piece}}}, nil)
		if err != nil {
			return nil, err
		}
	}
	finish := &systemv1.FinishBitcoinCore{Upload: id, Order: r.order}
	between(finish)
	reply, err = c.middleware.Do(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_FinishBitcoinCore{FinishBitcoinCore: finish}}, nil)
	return reply.GetBitcoinCoreInstalled(), err
}

// ordered waits until systemd was ordered something.
func (c *core) ordered(order string) {
	c.t.Helper()
	until(c.t, "systemd is told to "+order, func() error {
		if !slices.Contains(c.systemd.Done(), order) {
			return errors.New("it was not")
		}
		return nil
	})
}

func honest(*systemv1.FinishBitcoinCore) {}

func TestAnOwnerInstallsBitcoinCore(t *testing.T) {
	c := newCore(t)
	got, err := c.bring(c.release("30.2", "ann", "dan", "cyd"), honest)
	if err != nil || got.GetVersion() != "30.2" || !slices.Equal(got.GetSigners(), []string{"ann", "cyd", "dan"}) {
		t.Fatalf("%v, %v", got, err)
	}
	if _, r, err := bitcoincore.Find(c.place); err != nil || r.Version != "30.2" {
		t.Errorf("%+v, %v", r, err)
	}
	for _, order := range []string{"restart " + generation.ChainUnit, "restart " + generation.WatcherUnit} {
		c.ordered(order)
	}
	if left, err := os.ReadDir(c.config.NodeIncoming); err != nil || len(left) > 0 {
		t.Errorf("of the upload %v are left: %v", left, err)
	}
	entries := c.logged()
	if last := line(entries[len(entries)-1]); !strings.Contains(last, "owner Laptop: bitcoin-core "+coretest.Name("30.2")) {
		t.Errorf("the log has %q", last)
	}
}

// A Middleware that was taken over brings what it likes, whenever it likes.
func TestACompromisedMiddlewareInstallsNothingAnOwnerHasNotSignedFor(t *testing.T) {
	c := newCore(t)
	if _, err := c.bring(c.release("30.2", "ann", "bob", "cyd"), honest); err != nil {
		t.Fatal(err)
	}
	good := c.release("31.0", "ann", "bob", "cyd")
	evil := c.release("31.0", "stranger", "stranger", "stranger")
	old := c.release("29.0", "ann", "bob", "cyd") // genuine, with a known hole
	used := c.release("31.0", "ann", "bob")
	for name, attack := range map[string]struct {
		want    string
		release func() brought
		between func(*systemv1.FinishBitcoinCore)
	}{
		"a genuine release that nobody has ordered": {want: "", release: func() brought {
			return brought{old.archive, old.sums, old.signatures, nil}
		}},
		"a genuine older release, with the order of a newer one": {want: "SHA256SUMS does not list", release: func() brought {
			return brought{old.archive, old.sums, old.signatures, c.release("31.0").order}
		}},
		"another archive of the same name": {want: "the archive is not the one that the owner has signed for", release: func() brought {
			order := c.order(coretest.Name("31.0"), sha256.Sum256(good.archive), c.app.seed)
			other := slices.Clone(good.archive)
			other[len(other)-1] ^= 1
			return brought{other, good.sums, good.signatures, order}
		}},
		"an order once more": {want: "challenge", release: func() brought {
			_, _ = c.bring(used, honest)
			return used
		}},
		"the order of a stranger": {want: "", release: func() brought {
			seed := newAppSeed()
			return brought{good.archive, good.sums, good.signatures, c.order(coretest.Name("31.0"), sha256.Sum256(good.archive), seed)}
		}},
		"an order to make the chain again": {want: "the order is about something else", release: func() brought {
			order := posture.SignNodeOrder(c.app.look().RebuildOrder(systemv1.RebuildChain_WAY_RESYNC, c.app.challenge()), c.app.seed)
			return brought{good.archive, good.sums, good.signatures, order}
		}},
		"signatures of strangers": {want: "0 of the builder's signers", release: func() brought { return evil }},
		"another order in the log": {want: "the order is about something else",
			release: func() brought { return c.release("31.0", "ann", "bob", "cyd") },
			between: func(f *systemv1.FinishBitcoinCore) { f.Order = good.order }},
		"the end before the last piece": {want: "the archive is not the one", release: func() brought {
			r := c.release("31.0", "ann", "bob", "cyd")
			r.archive = r.archive[:len(r.archive)-1]
			return r
		}},
	} {
		if attack.between == nil {
			attack.between = honest
		}
		got, err := c.bring(attack.release(), attack.between)
		var refused *helperclient.Error
		if !errors.As(err, &refused) || !strings.Contains(refused.Message, attack.want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if _, r, err := bitcoincore.Find(c.place); err != nil || r.Version != "30.2" {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	// The attacks are the way in but for what they change.
	if _, err := c.bring(c.release("31.0", "ann", "bob", "cyd"), honest); err != nil {
		t.Errorf("an honest one: %v", err)
	}
}

func TestACompromisedMiddlewareDeletesNoBlocks(t *testing.T) {
	c := newCore(t)
	file := filepath.Join(c.config.NodeRuntime, nodeorders.RebuildFile)
	install := c.order(coretest.Name("31.0"), [32]byte{1}, c.app.seed)
	stranger := posture.SignNodeOrder(c.app.look().RebuildOrder(systemv1.RebuildChain_WAY_RESYNC, c.app.challenge()), newAppSeed())
	for name, order := range map[string][]byte{"none": nil, "of a stranger": stranger, "to install": install} {
		if _, err := c.middleware.Do(t.Context(), rebuildRequest(order), nil); err == nil {
			t.Errorf("an order %s was taken", name)
		}
		if _, err := os.Stat(file); err == nil {
			t.Fatalf("an order %s reaches the node", name)
		}
	}
	order := posture.SignNodeOrder(c.app.look().RebuildOrder(systemv1.RebuildChain_WAY_RESYNC, c.app.challenge()), c.app.seed)
	if _, err := c.middleware.Do(t.Context(), rebuildRequest(order), nil); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(first), `"resync":true`) {
		t.Errorf("%s, %v", first, err)
	}
	c.ordered("restart " + generation.ChainUnit)
	if _, err := c.middleware.Do(t.Context(), rebuildRequest(order), nil); err == nil {
		t.Error("an order was taken twice")
	}
	if again, _ := os.ReadFile(file); string(again) != string(first) {
		t.Errorf("%s", again)
	}
}

func TestAnUploadOfBitcoinCoreIsBounded(t *testing.T) {
	c := newCore(t)
	for name, change := range map[string]func(*systemv1.BeginBitcoinCore){
		"a huge archive":          func(m *systemv1.BeginBitcoinCore) { m.Size = bitcoincore.MaxArchive + 1 },
		"an empty archive":        func(m *systemv1.BeginBitcoinCore) { m.Size = 0 },
		"huge sums":               func(m *systemv1.BeginBitcoinCore) { m.Sums = make([]byte, bitcoincore.MaxSums+1) },
		"a great many signatures": func(m *systemv1.BeginBitcoinCore) { m.Signatures = make([]byte, bitcoincore.MaxSignatures+1) },
	} {
		r := c.release("31.0")
		m := &systemv1.BeginBitcoinCore{Order: r.order, Sums: r.sums, Size: uint64(len(r.archive))}
		change(m)
		_, err := c.middleware.Do(t.Context(), &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_BeginBitcoinCore{BeginBitcoinCore: m}}, nil)
		if err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	// One at a time; what comes too late, too early or too long ends it.
	r := c.release("31.0", "ann", "bob", "cyd")
	begin := &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_BeginBitcoinCore{BeginBitcoinCore: &systemv1.BeginBitcoinCore{
		Order: r.order, Sums: r.sums, Signatures: r.signatures, Size: 10}}}
	reply, err := c.middleware.Do(t.Context(), begin, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.middleware.Do(t.Context(), begin, nil); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeBusy}) {
		t.Errorf("a second upload: %v", err)
	}
	_, err = c.middleware.Do(t.Context(), &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_BitcoinCorePiece{
		BitcoinCorePiece: &systemv1.BitcoinCorePiece{Upload: reply.GetUpdateBegan().GetUpload(), Data: make([]byte, 11)}}}, nil)
	if err == nil {
		t.Error("more than was announced was taken")
	}
	if left, err := os.ReadDir(c.config.NodeIncoming); err != nil || len(left) > 0 {
		t.Errorf("of the upload %v are left: %v", left, err)
	}
}
