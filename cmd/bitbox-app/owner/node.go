package owner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/timespan"
)

const (
	// NodeService is the name of the node among the services.
	NodeService = "bitcoin"
	// NodeInstallTime is how long sending a release of Bitcoin Core over a slow network and installing it
	// may take.
	NodeInstallTime = time.Hour

	// upTime is how long a node may take to answer with new settings until the App says that it does not
	// yet. Bitcoin Core reads the index of its blocks first.
	upTime = 90 * time.Second
	upEach = time.Second
	// usualCache is that of Bitcoin Core, in MiB.
	usualCache = 450
	off        = "off"
)

// BtcdSentence is what somebody types who wants btcd on mainnet.
func BtcdSentence() words.Said { return words.Saying("typed.btcd") }

// NodeWish is what an owner wants of the node, as it was typed; what is empty stays as it is.
type NodeWish struct {
	Program, Network string
	// Prune is how many GB of blocks are kept, Cache how many MiB of memory hold the chain's state, and
	// Every how often a block is made, such as 20s. "off" ends the first and the last.
	Prune, Cache, Every string
}

// Over puts a wish over the settings that there are, as the Base's helper has signed them; nil: it has no
// node.
func (w NodeWish) Over(now *basev1.NodeSettings) (*basev1.NodeSettings, error) {
	s := &basev1.NodeSettings{CacheMib: usualCache}
	if now != nil { // without fields that this App does not know: it signs nothing that it cannot show
		s = &basev1.NodeSettings{Program: now.GetProgram(), Network: now.GetNetwork(), PruneGb: now.GetPruneGb(), CacheMib: now.GetCacheMib(),
			BlockEverySeconds: now.GetBlockEverySeconds()}
	}
	var errs [5]error
	if w.Program != "" {
		s.Program = basev1.NodeSettings_Program(basev1.NodeSettings_Program_value["PROGRAM_"+strings.ToUpper(w.Program)])
		if s.Program == 0 {
			errs[0] = Unusable("there is no program %q; it is core or btcd", client.Printable(w.Program))
		}
	}
	if w.Network != "" {
		s.Network = basev1.Network(basev1.Network_value["NETWORK_"+strings.ToUpper(w.Network)])
		if s.Network == 0 {
			errs[1] = Unusable("there is no network %q; it is mainnet, testnet4, signet, regtest or simnet", client.Printable(w.Network))
		}
	}
	if w.Prune != "" {
		s.PruneGb, errs[2] = number("prune", w.Prune, true)
	}
	if w.Cache != "" {
		s.CacheMib, errs[3] = number("cache", w.Cache, false)
	}
	makes := s.Program == basev1.NodeSettings_PROGRAM_BTCD && s.Network == basev1.Network_NETWORK_REGTEST
	switch {
	case w.Every == off || w.Every == "" && !makes:
		s.BlockEverySeconds = 0
	case w.Every != "":
		every, err := timespan.Parse(w.Every)
		if err != nil || every < time.Second || every > 24*time.Hour {
			return nil, Unusable("block-every is a time from 1s to 24h, such as 20s")
		}
		s.BlockEverySeconds = uint32(every / time.Second)
	}
	if s.Program == 0 || s.Network == 0 {
		errs[4] = Unusable("this Base has no node yet; name a program and a network")
	}
	return s, cmp.Or(errs[0], errs[1], errs[2], errs[3], errs[4])
}

// number reads a setting that is a number, or "off".
func number(setting, typed string, mayBeOff bool) (uint32, error) {
	if mayBeOff && typed == off {
		return 0, nil
	}
	n, err := strconv.ParseUint(typed, 10, 32)
	if err != nil || n == 0 {
		return 0, Unusable("%s is %q, and must be a number", setting, client.Printable(typed))
	}
	return uint32(n), nil
}

// AsksBtcd tells whether settings need BtcdSentence: each time, since root can have accepted it in the place
// of an owner.
func AsksBtcd(wanted *basev1.NodeSettings) bool {
	return wanted.GetProgram() == basev1.NodeSettings_PROGRAM_BTCD && wanted.GetNetwork() == basev1.Network_NETWORK_MAINNET
}

// Accept marks settings with btcd on mainnet as wanted by an owner who knows what that is, and refuses
// settings that the node has already.
func Accept(before, wanted *basev1.NodeSettings) error {
	wanted.AcceptsBtcdOnMainnet = AsksBtcd(wanted)
	if proto.Equal(wanted, before) {
		return words.Failing(client.ErrNoChange, "problems.node.same")
	}
	return nil
}

// CheckBtcd refuses another sentence than BtcdSentence.
func CheckBtcd(typed string) error {
	if !words.Typed(BtcdSentence(), strings.TrimSpace(typed)) {
		return words.Failing(client.ErrNotApproved, "problems.btcd")
	}
	return nil
}

// BtcdCost says what btcd on mainnet means.
func BtcdCost() client.PostureChange {
	return words.Change(client.PostureChange{Field: "node.program"}, "deed.btcd")
}

// NodeValue is a setting of the node in words.
type NodeValue struct {
	Field       string
	Title, Text words.Said
}

// NodeValues are the settings in words.
func NodeValues(s *basev1.NodeSettings) []NodeValue {
	blocks, every := words.Saying("values.blocks.all"), words.Saying("values.interval.none")
	if s.GetPruneGb() > 0 {
		blocks = words.Saying("values.blocks.newest", s.GetPruneGb())
	}
	if s.GetBlockEverySeconds() > 0 {
		every = words.Saying("values.interval.some", words.Seconds(s.GetBlockEverySeconds()))
	}
	program := words.Saying("values.none")
	switch s.GetProgram() {
	case basev1.NodeSettings_PROGRAM_CORE:
		program = words.Plain("Bitcoin Core")
	case basev1.NodeSettings_PROGRAM_BTCD:
		program = words.Plain("btcd")
	}
	values := []NodeValue{
		{"node.program", words.Saying("values.program"), program},
		{"node.network", words.Saying("values.network"), words.Saying("values.as", s.GetNetwork())},
		{"node.prune", words.Saying("values.blocks"), blocks},
		{"node.cache", words.Saying("values.cache"), words.Plain(fmt.Sprintf("%d MiB", s.GetCacheMib()))},
	}
	if s.GetBlockEverySeconds() > 0 || s.GetNetwork() == basev1.Network_NETWORK_REGTEST {
		values = append(values, NodeValue{"node.block-every", words.Saying("values.interval"), every})
	}
	return values
}

// NodeChanges says what is different, and what stays: the owner signs all of it.
func NodeChanges(before, after *basev1.NodeSettings) (changes, stays []client.PostureChange) {
	none := words.Saying("values.none")
	was := map[string]words.Said{}
	for _, value := range NodeValues(before) {
		was[value.Field] = value.Text
		if before == nil {
			was[value.Field] = none
		}
	}
	for _, value := range NodeValues(after) {
		old, known := was[value.Field]
		if !known {
			old = none
		}
		text := value.Text.String()
		one := client.PostureChange{Field: value.Field, Before: old.String(), After: text}
		if text != old.String() {
			changes = append(changes, words.Change(one, "deed.node-settings", value.Title, value.Text, old))
		} else {
			stays = append(stays, words.Change(one, "deed.node-stays", value.Title, value.Text))
		}
	}
	return changes, stays
}

// ServiceOfNode is the service of the node, as systemd knows it; nil: there is none.
func ServiceOfNode(ctx context.Context, session *client.Session) (*basev1.Service, error) {
	list, err := session.Services.ListServices(ctx, &basev1.ListServicesRequest{})
	for _, service := range list.GetServices() {
		if service.GetName() == NodeService {
			return service, err
		}
	}
	return nil, err
}

// AwaitNode waits for the node to restart, and to answer on its network. Otherwise it returns why it does
// not, as far as the Base knows. was is its service before.
func AwaitNode(ctx context.Context, session *client.Session, was *basev1.Service, network basev1.Network) (reason words.Said, err error) {
	ctx, cancel := context.WithTimeout(ctx, upTime)
	defer cancel()
	for {
		service, err := ServiceOfNode(ctx, session)
		var n *basev1.Node
		// Before it has restarted, the old one answers.
		restarted := service.GetState() != basev1.Service_STATE_STOPPING && !proto.Equal(service.GetSince(), was.GetSince())
		if err == nil && restarted {
			var answer *basev1.GetNodeResponse
			answer, err = session.Node.GetNode(ctx, &basev1.GetNodeRequest{})
			n = answer.GetNode()
		}
		switch {
		case errors.Is(ctx.Err(), context.Canceled):
			return words.Said{}, ctx.Err()
		case ctx.Err() != nil && reason.Empty():
			return words.Saying("values.up.silent", words.Seconds(upTime/time.Second)), nil
		case ctx.Err() != nil:
			return reason, nil
		case client.Refused(err): // bitbox-node restarts, too
		case err != nil:
			return words.Said{}, err
		case !restarted:
			reason = words.Saying("values.up.stopping")
		case service.GetState() == basev1.Service_STATE_FAILED && service.GetReason() != "":
			return words.Saying("values.up.failed", words.ByBase(service.GetReason())), nil
		case service.GetState() == basev1.Service_STATE_FAILED:
			return words.Saying("values.up.log"), nil
		case n.GetNetwork() == network && (n.GetState() == basev1.Node_STATE_CURRENT || n.GetState() == basev1.Node_STATE_BEHIND):
			return words.Said{}, nil
		case n.GetReason() != "":
			reason = words.ByBase(n.GetReason())
		default:
			reason = words.Saying("values.up.is", n.GetState())
		}
		pause(ctx, upEach)
	}
}

// changeNode gives the node other settings, which the owner signs.
func changeNode(ctx context.Context, s *session, d Deed, h Hand) (words.Said, error) {
	answer, err := s.NodeSettings(ctx)
	if err != nil {
		return words.Said{}, err
	}
	before := answer.GetSettings()
	wanted, err := d.Node.Over(before)
	if err != nil {
		return words.Said{}, err
	}
	if AsksBtcd(wanted) {
		if err := h.types(ctx, BtcdSentence(), BtcdCost(), CheckBtcd); err != nil {
			return words.Said{}, err
		}
	}
	if err := Accept(before, wanted); err != nil {
		return words.Said{}, err
	}
	changes, stays := NodeChanges(before, wanted)
	if err := h.consent(append(changes, stays...)...); err != nil {
		return words.Said{}, err
	}
	was, err := ServiceOfNode(ctx, s.Session)
	if err != nil {
		return words.Said{}, err
	}
	if err := s.ChangeNodeSettings(ctx, wanted); err != nil {
		return words.Said{}, err
	}
	h.Progress(words.Saying("steps.node"))
	reason, err := AwaitNode(ctx, s.Session, was, wanted.GetNetwork())
	if reason.Empty() {
		return words.Saying("done.node-settings"), err
	}
	return words.Saying("done.node-settings.later", reason), err
}

// CoreChange says what an installation of Bitcoin Core does.
func CoreChange(release *client.BitcoinCore) client.PostureChange {
	return words.Change(client.PostureChange{Field: "node", Subject: release.Name}, "deed.install-core", release.Version)
}

// CoreInstalled says that it is installed.
func CoreInstalled(release *client.BitcoinCore, signers []string) words.Said {
	return words.Saying("done.install-core", client.Printable(release.Version), client.Printable(strings.Join(signers, ", ")))
}

// installCore brings a release of Bitcoin Core to the Base.
func installCore(ctx context.Context, s *session, d Deed, h Hand) (_ words.Said, err error) {
	release, err := client.OpenBitcoinCore(d.Text)
	if err != nil {
		return words.Said{}, err
	}
	defer func() { err = errors.Join(err, release.Close()) }()
	if err := h.consent(CoreChange(release)); err != nil {
		return words.Said{}, err
	}
	h.Progress(words.Saying("steps.send"))
	signers, err := s.InstallBitcoinCore(ctx, release, func(sent uint64) { h.Sent(sent, release.Size) })
	return CoreInstalled(release, signers), err
}
