package owner

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// DeedKind is something that can be done to a Base.
type DeedKind int

// The deeds, and which fields of Deed each one uses.
const (
	OpenWindow      DeedKind = iota + 1 // Role; unspecified: chosen at the Base
	CloseWindow                         // ends a pairing under way
	EndLease                            // Subject: "ssh" or the kind of an extra API
	ConfirmTry                          // of the change that waits for confirmation
	LiftBan                             // Subject: the address
	Fix                                 // Subject: the id of a finding; Text: what the Base will do
	Lockdown                            //
	Unlock                              //
	Pair                                // Addresses, Text: the App's name for the Base, Words
	Expose                              // Subject: the kind; Opening
	EnableSSH                           // For
	AddSSHKeys                          // Text: lines of public keys
	RemoveSSHKey                        // Subject: the fingerprint
	SetRole                             // Subject: the App's id; Text: its name; Role
	Revoke                              // Subject: the App's id; Text: its name
	RenameApp                           // Subject: the App's id; Text: its new name
	AcceptApp                           // Text: the request number; Role
	StartService                        // Subject: the service
	StopService                         // Subject
	RestartService                      // Subject
	EnableService                       // Subject
	DisableService                      // Subject
	Install                             // Text: the path of a release on this computer
	PreviousVersion                     //
	CheckReleases                       // Text: where the signed list is; empty: where the last one was
	InstallNewer                        // the newest release of the last list
	Rename                              // Text: the Base's new name
	SetTimeZone                         // Text: its name
	Reboot                              //
	PowerOff                            //
	NodeOnline                          // Subject: client.NodeInternet or client.NodeHome
	NodeOffline                         // Subject: the same
	CheckWallet                         // connects as a wallet does
	Reindex                             //
	Resync                              //
	ChangeNode                          // Node
	InstallCore                         // Text: the path of a release of Bitcoin Core on this computer
	UseDisk                             // Subject: the disk's name; Erase: a chain on it, too; Pruned
	FactoryReset                        // Erase: the chain, too
	DebianUpdates                       //
	Forget                              // of this App's own side
)

// Deed is one thing to do to a Base.
type Deed struct {
	Kind          DeedKind
	Subject, Text string
	Opening       client.Opening
	For           time.Duration
	Role          basev1.Role
	Addresses     []string
	Words         bool
	Node          NodeWish
	Erase, Pruned bool
	// From is where the deed was begun, for a way back there: a name that only the one who shows it knows.
	From string
}

// Hand is how a deed asks the owner, and tells how far it is.
type Hand struct {
	Approve  client.Approve
	Progress func(step words.Said)
	// Sent tells how many bytes of a file the Base has.
	Sent func(sent, total uint64)
	// Ask puts a question other than consent, and waits for the answer.
	Ask func(ctx context.Context, q Question) (Answer, error)
}

// deeds is the one table of what can be done. The name of a deed stands in addresses of pages, and in the
// keys of its words in package words: what will be under "changes.deed.", what was done under "done."; a
// form belongs to a DeedKind.
var deeds = map[DeedKind]struct {
	name string
	// says describes the change; nil where package client does, because it signs a posture.
	says func(Deed) client.PostureChange
	do   func(context.Context, *session, Deed, Hand) (words.Said, error)
}{
	OpenWindow: {"open-window", func(Deed) client.PostureChange {
		return words.Change(client.PostureChange{Field: "window", Before: "closed", After: "open", Opens: true}, "deed.open-window")
	}, func(ctx context.Context, s *session, d Deed, _ Hand) (_ words.Said, err error) {
		if d.Role == basev1.Role_ROLE_UNSPECIFIED { // chosen at the Base
			_, err = s.Pairing.OpenWindow(ctx, &basev1.OpenWindowRequest{})
		} else {
			_, err = s.OpenWindow(ctx, d.Role)
		}
		return words.Saying("done.open-window"), err
	}},
	CloseWindow: {"close-window", func(Deed) client.PostureChange {
		return words.Change(client.PostureChange{Field: "window", Before: "open", After: "closed"}, "deed.close-window")
	}, func(ctx context.Context, s *session, _ Deed, _ Hand) (words.Said, error) {
		_, err := s.Pairing.CloseWindow(ctx, &basev1.CloseWindowRequest{})
		return words.Saying("done.close-window"), err
	}},
	EndLease: {"end-lease", nil, func(ctx context.Context, s *session, d Deed, h Hand) (words.Said, error) {
		_, err := s.EndLease(ctx, d.Subject, h.Approve)
		return words.Saying("done.end-lease"), err
	}},
	ConfirmTry: {"confirm-try", nil, func(ctx context.Context, s *session, _ Deed, h Hand) (words.Said, error) {
		_, err := s.ConfirmTry(ctx, h.Approve)
		return words.Saying("done.confirm-try"), err
	}},
	LiftBan: {"lift-ban", func(d Deed) client.PostureChange {
		return words.Change(client.PostureChange{Field: "ban", Subject: d.Subject, Before: "banned", After: "none", Opens: true},
			"deed.lift-ban", d.Subject)
	}, func(ctx context.Context, s *session, d Deed, _ Hand) (words.Said, error) {
		lifted, err := s.LiftBan(ctx, d.Subject)
		if err == nil && !lifted {
			return words.Saying("done.no-ban", d.Subject), nil
		}
		return words.Saying("done.lift-ban", d.Subject), err
	}},
	Fix: {"fix", func(d Deed) client.PostureChange {
		return client.PostureChange{Field: "finding", Subject: d.Subject, Text: d.Text}
	},
		func(ctx context.Context, s *session, d Deed, _ Hand) (words.Said, error) {
			_, err := s.Session.Audit.FixFinding(ctx, &basev1.FixFindingRequest{Id: d.Subject})
			return words.Saying("done.fix"), err
		}},
	Lockdown: {"lockdown", func(Deed) client.PostureChange {
		return words.Change(client.PostureChange{Field: "lockdown", Before: "off", After: "on"}, "deed.lockdown")
	}, func(ctx context.Context, s *session, _ Deed, _ Hand) (words.Said, error) {
		_, err := s.Lockdown(ctx)
		return words.Saying("done.lockdown"), err
	}},
	Unlock: {"unlock", nil, func(ctx context.Context, s *session, _ Deed, h Hand) (words.Said, error) {
		_, err := s.Apply(ctx, client.Change{Edit: client.KeepClosed, Unlock: true, Approve: h.Approve, Progress: h.applies})
		return words.Saying("done.unlock"), err
	}},
	Expose: {"expose", nil, func(ctx context.Context, s *session, d Deed, h Hand) (words.Said, error) {
		return s.apply(ctx, client.Expose(d.Subject, d.Opening), h)
	}},
	EnableSSH: {"enable-ssh", nil, func(ctx context.Context, s *session, d Deed, h Hand) (words.Said, error) {
		return s.apply(ctx, client.EnableSSH(d.For), h)
	}},
	AddSSHKeys: {"add-ssh-keys", nil, func(ctx context.Context, s *session, d Deed, h Hand) (words.Said, error) {
		return s.apply(ctx, client.AddSSHKeys(d.Text, ""), h)
	}},
	RemoveSSHKey: {"remove-ssh-key", nil, func(ctx context.Context, s *session, d Deed, h Hand) (words.Said, error) {
		return s.apply(ctx, client.RemoveSSHKey(d.Subject), h)
	}},
	SetRole: {"set-role", nil, func(ctx context.Context, s *session, d Deed, h Hand) (words.Said, error) {
		if err := s.meant(ctx, d); err != nil {
			return words.Said{}, err
		}
		_, err := s.SetRole(ctx, d.Subject, d.Role, h.Approve, h.applies)
		return words.Saying("done.set-role"), err
	}},
	Revoke: {"revoke", nil, func(ctx context.Context, s *session, d Deed, h Hand) (words.Said, error) {
		if err := s.meant(ctx, d); err != nil {
			return words.Said{}, err
		}
		_, err := s.RevokeApp(ctx, d.Subject, h.Approve)
		return words.Saying("done.revoke"), err
	}},
	RenameApp: {"rename-app", func(d Deed) client.PostureChange {
		return words.Change(client.PostureChange{Field: "app name", Subject: d.Subject, After: d.Text}, "deed.rename-app", d.Text)
	}, func(ctx context.Context, s *session, d Deed, _ Hand) (words.Said, error) {
		_, err := s.Apps.RenameApp(ctx, &basev1.RenameAppRequest{Id: d.Subject, Name: d.Text})
		return words.Saying("done.rename-app"), err
	}},
	AcceptApp:    {"accept-app", nil, acceptApp},
	StartService: {"start-service", service("start-service"), act(basev1.ServiceAction_SERVICE_ACTION_START)},
	StopService: {"stop-service", service("stop-service"),
		act(basev1.ServiceAction_SERVICE_ACTION_STOP)},
	RestartService: {"restart-service", service("restart-service"), act(basev1.ServiceAction_SERVICE_ACTION_RESTART)},
	EnableService:  {"enable-service", service("enable-service"), act(basev1.ServiceAction_SERVICE_ACTION_ENABLE)},
	DisableService: {"disable-service", service("disable-service"),
		act(basev1.ServiceAction_SERVICE_ACTION_DISABLE)},
	Install:         {"install", nil, install},
	PreviousVersion: {"previous-version", nil, previousVersion},
	CheckReleases:   {"check-releases", nil, checkReleases},
	InstallNewer:    {"install-newer", nil, installNewer},
	Rename: {"rename", nil, func(ctx context.Context, s *session, d Deed, h Hand) (words.Said, error) {
		return s.apply(ctx, client.Rename(d.Text), h)
	}},
	SetTimeZone: {"set-time-zone", func(d Deed) client.PostureChange {
		return words.Change(client.PostureChange{Field: "time zone", After: d.Text}, "deed.set-time-zone", d.Text)
	}, func(ctx context.Context, s *session, d Deed, _ Hand) (words.Said, error) {
		_, err := s.Machine.SetTimeZone(ctx, &basev1.SetTimeZoneRequest{Name: d.Text})
		return words.Saying("done.set-time-zone"), err
	}},
	Reboot: {"reboot", func(Deed) client.PostureChange {
		return words.Change(client.PostureChange{Field: "machine", Before: "runs", After: "restarts"}, "deed.reboot")
	}, func(ctx context.Context, s *session, _ Deed, h Hand) (words.Said, error) {
		begun := time.Now()
		if _, err := s.Machine.Reboot(ctx, &basev1.RebootRequest{}); err != nil {
			return words.Said{}, err
		}
		h.Progress(words.Saying("steps.reboot"))
		_, err := s.AwaitReboot(ctx, begun)
		return words.Saying("done.reboot"), err
	}},
	PowerOff: {"power-off", func(Deed) client.PostureChange {
		return words.Change(client.PostureChange{Field: "machine", Before: "runs", After: "off"}, "deed.power-off")
	}, func(ctx context.Context, s *session, _ Deed, _ Hand) (words.Said, error) {
		_, err := s.Machine.PowerOff(ctx, &basev1.PowerOffRequest{})
		return words.Saying("done.power-off"), err
	}},
	NodeOnline: {"node-online", nil, func(ctx context.Context, s *session, d Deed, h Hand) (words.Said, error) {
		if d.Subject != client.NodeHome && d.Subject != client.NodeInternet {
			return words.Said{}, Unusable("the node can be let out to the internet or to your home")
		}
		return s.apply(ctx, client.LetOut(d.Subject), h)
	}},
	NodeOffline: {"node-offline", nil, func(ctx context.Context, s *session, d Deed, h Hand) (words.Said, error) {
		if d.Subject != client.NodeHome && d.Subject != client.NodeInternet {
			return words.Said{}, Unusable("the node can be kept from the internet or from your home")
		}
		return s.apply(ctx, client.KeepIn(d.Subject), h)
	}},
	CheckWallet:  {"check-wallet", nil, checkWallet},
	ChangeNode:   {"node-settings", nil, changeNode},
	InstallCore:  {"install-core", nil, installCore},
	UseDisk:      {"use-disk", nil, useDisk},
	FactoryReset: {"factory-reset", nil, reset},
	Reindex:      {"reindex", nil, rebuild(false)},
	Resync:       {"resync", nil, rebuild(true)},
	DebianUpdates: {"debian-updates", func(Deed) client.PostureChange {
		return words.Change(client.PostureChange{Field: "debian"}, "deed.debian-updates")
	}, func(ctx context.Context, s *session, _ Deed, h Hand) (words.Said, error) {
		return words.Saying("done.debian-updates"), s.InstallDebianUpdates(ctx, func(line string) error {
			h.Progress(words.ByBase(line))
			return nil
		})
	}},
	Forget: {"forget", func(Deed) client.PostureChange {
		return words.Change(client.PostureChange{Field: "pairing"}, "deed.forget")
	}, nil}, // done by the Owner, like the next
	Pair: {"pair", nil, nil},
}

// String is the deed's name in addresses of pages; empty for a number that is no deed.
func (k DeedKind) String() string { return deeds[k].name }

// Kinds are all deeds, in their order.
func Kinds() []DeedKind { return slices.Sorted(maps.Keys(deeds)) }

// tried are the deeds whose change the Base tries, and undoes unless this App confirms it. A lower role
// holds at once, so SetRole is none of them.
var tried = []DeedKind{Unlock, Expose, EnableSSH, AddSSHKeys, RemoveSSHKey, Rename, NodeOnline, NodeOffline}

// Tried tells whether the Base undoes the deed by itself if it is cut off after the yes.
func (k DeedKind) Tried() bool { return slices.Contains(tried, k) }

// looks are the deeds that change nothing, so they ask nothing.
var looks = []DeedKind{CheckReleases, CheckWallet}

// Changes tells whether the deed changes something, which the owner says yes to.
func (k DeedKind) Changes() bool { return !slices.Contains(looks, k) }

// ParseDeed returns the deed with this name.
func ParseDeed(name string) (DeedKind, bool) {
	for kind, d := range deeds {
		if d.name == name {
			return kind, true
		}
	}
	return 0, false
}

// Change describes a deed in words; empty where package client does it when the deed begins.
func (d Deed) Change() client.PostureChange {
	if says := deeds[d.Kind].says; says != nil {
		return says(d)
	}
	return client.PostureChange{}
}

func (s *session) Do(ctx context.Context, d Deed, h Hand) (words.Said, error) {
	row, known := deeds[d.Kind]
	if !known || row.do == nil {
		return words.Said{}, fmt.Errorf("deed %d is not done at a Base", d.Kind)
	}
	d, err := s.complete(ctx, d)
	if err != nil {
		return words.Said{}, err
	}
	if row.says != nil {
		if err := h.consent(row.says(d)); err != nil {
			return words.Said{}, err
		}
	}
	result, err := row.do(ctx, s, d, h)
	if err != nil {
		return words.Said{}, err
	}
	return result, nil
}

// consent asks about changes, and returns an error unless the owner wants it.
func (h Hand) consent(changes ...client.PostureChange) error {
	yes, err := h.Approve(changes)
	if err == nil && !yes {
		err = errNo
	}
	return err
}

// errNo: the owner has said no.
var errNo error = &client.Error{Kind: client.ErrNotApproved, Text: "nothing was changed"}

// complete asks the Base what a fix will do, where the deed does not say it.
func (s *session) complete(ctx context.Context, d Deed) (Deed, error) {
	if d.Kind != Fix || d.Text != "" {
		return d, nil
	}
	found, _, err := s.Audit(ctx)
	at := slices.IndexFunc(found, func(f *basev1.Finding) bool { return f.GetId() == d.Subject })
	switch {
	case err != nil:
		return d, err
	case at < 0:
		return d, Unusable("the Base no longer finds that")
	case !found[at].GetFixable():
		return d, Unusable("the Base cannot repair it by itself; repair it by hand: %s", found[at].GetFix())
	}
	d.Text = found[at].GetFix()
	return d, nil
}

// applies tells the steps of a change of a posture, as the Base names them.
func (h Hand) applies(step string) { h.Progress(words.ApplyStep(step)) }

func (s *session) apply(ctx context.Context, edit client.Edit, h Hand) (words.Said, error) {
	_, err := s.Apply(ctx, client.Change{Edit: edit, Approve: h.Approve, Progress: h.applies})
	return words.Saying("done.posture"), err
}

const otherName = "the App %q was paired as %q; so it is not certain which App is meant, and nothing was done"

// meant refuses an App that was not paired under the name that the owner has read: the Middleware
// may have given another App that name.
func (s *session) meant(ctx context.Context, d Deed) error {
	pairedAs, err := s.CheckName(ctx, d.Subject, d.Text)
	if err != nil && pairedAs != "" {
		return &client.Error{Kind: client.ErrNoSuchApp, Cause: err, Text: fmt.Sprintf(otherName, d.Text, pairedAs), Format: otherName,
			Args: []any{d.Text, pairedAs}}
	}
	return err
}

func service(what string) func(Deed) client.PostureChange {
	return func(d Deed) client.PostureChange {
		return words.Change(client.PostureChange{Field: "service", Subject: d.Subject}, "deed."+what, d.Subject)
	}
}

func act(action basev1.ServiceAction) func(context.Context, *session, Deed, Hand) (words.Said, error) {
	return func(ctx context.Context, s *session, d Deed, _ Hand) (words.Said, error) {
		_, err := s.Services.ChangeService(ctx, &basev1.ChangeServiceRequest{Name: d.Subject, Action: action})
		return words.Saying("done.service"), err
	}
}

func acceptApp(ctx context.Context, s *session, d Deed, h Hand) (words.Said, error) {
	listed, err := s.AcceptPairing(ctx, client.Acceptance{
		Number: d.Text, Role: d.Role,
		Accepted: func() { h.Progress(words.Saying("steps.accepted")) },
		Words: func(ctx context.Context, app client.NewApp) (string, error) {
			answer, err := h.Ask(ctx, Question{Kind: TypeWords, App: app})
			if !answer.Yes {
				return "", err
			}
			return answer.Text, err
		},
		Matched: func() { h.Progress(words.Saying("steps.matched")) },
	})
	if err == nil && !listed {
		return words.Saying("done.accept-app.later"), nil
	}
	return words.Saying("done.accept-app"), err
}

// RebuildCost says what making the chain again costs, in two lines: reading the blocks again or, with
// resync, downloading them.
func RebuildCost(resync bool) client.PostureChange {
	kind := "deed.reindex"
	if resync {
		kind = "deed.resync"
	}
	return words.Change(client.PostureChange{Field: "chain"}, kind)
}

// CheckRebuild refuses what a node cannot do.
func CheckRebuild(n *basev1.Node, resync bool) error {
	if strings.HasPrefix(n.GetSoftware(), "btcd") && !resync {
		return Unusable("btcd cannot read its blocks again; it can download them again, which is resync")
	}
	return nil
}

// rebuild has the node make its chain again, once the owner has typed the name of the Base.
func rebuild(resync bool) func(context.Context, *session, Deed, Hand) (words.Said, error) {
	return func(ctx context.Context, s *session, _ Deed, h Hand) (words.Said, error) {
		answer, err := s.Node.GetNode(ctx, &basev1.GetNodeRequest{})
		if err != nil {
			return words.Said{}, err
		}
		if err := CheckRebuild(answer.GetNode(), resync); err != nil {
			return words.Said{}, err
		}
		view, err := s.Posture(ctx)
		if err != nil {
			return words.Said{}, err
		}
		name := view.Effective().NodeName
		if err := h.types(ctx, words.Plain(name), RebuildCost(resync), isName(name)); err != nil {
			return words.Said{}, err
		}
		return words.Saying("done.rebuild"), s.RebuildChain(ctx, resync)
	}
}

// Ask asks the Base for a part.
func (s *session) Ask(ctx context.Context, want Want) (a Answered, err error) {
	switch want.Part {
	case Logs:
		a.Lines, err = firstLines(s.ReadLogs(ctx, &basev1.ReadLogsRequest{Services: []string{want.Subject}, Lines: logLines}))
	case Changes:
		a.Changes, err = s.Changes(ctx)
	case Wallets:
		a.Wallets, err = s.Wallet.GetWallets(ctx, &basev1.GetWalletsRequest{Kind: want.Subject})
	case Disks:
		a.Disks, err = s.Disks(ctx)
	case Software:
		if a.Update, err = UpdateStatus(ctx, s.Session); err == nil {
			a.Newer, a.ListFrom, err = s.source.releases.Newer(a.Update)
		}
	case Peers:
		a.Peers, err = s.Node.ListPeers(ctx, &basev1.ListPeersRequest{})
	case NodeSettings:
		a.NodeSettings, err = s.NodeSettings(ctx)
	case TimeZones:
		a.TimeZones, err = s.Machine.ListTimeZones(ctx, &basev1.ListTimeZonesRequest{})
	default:
		err = fmt.Errorf("unknown part %d", want.Part)
	}
	return a, err
}

const (
	// logLines is how many lines of a service are shown, and longestLine how many bytes of each.
	logLines    = 200
	longestLine = 2000
)

// firstLines reads as many lines as were asked for. A Base that lies sends longer ones, without end.
func firstLines(entries iter.Seq2[*basev1.LogEntry, error]) (lines []*basev1.LogEntry, err error) {
	for entry, err := range entries {
		if err != nil {
			return nil, err
		}
		if lines = append(lines, cutEntry(entry)); len(lines) == logLines {
			break
		}
	}
	return lines, nil
}

// cutEntry is what is kept of an entry. It is a new one: a field that this App does not know could take
// 4 MiB.
func cutEntry(e *basev1.LogEntry) *basev1.LogEntry {
	return &basev1.LogEntry{Time: &timestamppb.Timestamp{Seconds: e.GetTime().GetSeconds(), Nanos: e.GetTime().GetNanos()},
		Priority: e.GetPriority(), Text: cutLine(e.GetText())}
}

func cutLine(text string) string {
	if len(text) <= longestLine {
		return text
	}
	return strings.ToValidUTF8(text[:longestLine], "") + " …"
}
