package pages

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
)

// fullBase is a Base that tells all that it can, to an App with this role. text stands in each place
// that a Base, an App, a peer or a disk fills.
func fullBase(role basev1.Role, text string) owner.Base {
	b := openBase()
	say := func(usual string) string {
		if text != "" {
			return text
		}
		return usual
	}
	b.Name, b.PublicKey, b.Role, b.Addresses = say("Kitchen"), [32]byte{5}, role, []string{"192.168.1.20:8845"}
	at := func(ago time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-ago)) }
	i := b.Look.Info
	i.Name, i.SoftwareVersion, i.TimeZone, i.PublicKey = say("Kitchen"), say("1.3.0"), say("Europe/Zurich"), strings.Repeat("5f2c", 16)
	i.Caller = &basev1.App{Id: "a1", Name: say("laptop"), Role: role}
	i.DiskTroubles = []string{say("the disk nvme0n1 reports 12 bad blocks")}
	b.Look.Access.Doors[1] = owner.Door{Kind: owner.WalletKind, Port: 50002, Left: 47 * time.Minute, From: []string{"192.168.1.0/24"},
		Certificate: strings.Repeat("a1b2", 16)}
	b.Look.Access.Internet = []string{client.NodeInternet}
	b.Look.Apps = []*basev1.App{
		{Id: "a1", Name: say("laptop"), Role: role, PairedAt: at(90 * 24 * time.Hour), LastSeenAt: at(0), Sessions: 1, IsCaller: true,
			LastAddress: "192.168.1.31"},
		{Id: "5f2c9a7e01d4b863", Name: say("Anna's phone"), Role: basev1.Role_ROLE_OPERATOR, PairedAt: at(20 * time.Hour), Sessions: 2},
		{Id: "77aa9a7e01d4b863", Name: say("old tablet"), Role: basev1.Role_ROLE_VIEWER, PairedAt: at(900 * time.Hour),
			LastSeenAt: at(300 * time.Hour)},
	}
	b.Look.Window.Role = basev1.Role_ROLE_VIEWER
	again, all := []basev1.ServiceAction{1, 3}, []basev1.ServiceAction{1, 2, 3, 4, 5}
	b.Look.Services = []*basev1.Service{
		{Name: "firewall", Description: say("Packet filter: accepts only what the posture allows"),
			State: basev1.Service_STATE_DONE, Since: at(time.Hour)},
		{Name: "nginx", Description: say("NGINX, the Base's single entry"), State: basev1.Service_STATE_RUNNING,
			Since: at(time.Hour), Actions: again,
			MemoryBytes: pointer(uint64(9 << 20)), Enabled: true},
		{Name: "mdns", Description: say("Announces the Base on the local network (Avahi)"), State: basev1.Service_STATE_STOPPED,
			Actions: all},
		{Name: "wallet-server", Description: say("Serves wallets from the node (Electrum)"), State: basev1.Service_STATE_RUNNING,
			Enabled: true, Actions: all},
		{Name: nodeService, Description: say("Bitcoin node, if the Base has one"), State: basev1.Service_STATE_FAILED,
			Reason:   say("exit code 1"),
			Restarts: 5, Enabled: true, Actions: all},
	}
	b.Look.Node = &basev1.Node{State: basev1.Node_STATE_BEHIND, Reason: say("it loads blocks"), Software: say("Bitcoin Core"),
		Version: say("30.0"),
		Network: basev1.Network_NETWORK_MAINNET, Height: 811204, BestBlockTime: at(900 * 24 * time.Hour),
		Headers: pointer(uint64(924315)),
		Target:  924315, Progress: 0.874, LeftSeconds: pointer(uint64(93000)), PeersIn: pointer(uint32(2)),
		PeersOut:            pointer(uint32(10)),
		MempoolTransactions: pointer(uint64(48211)), MempoolBytes: pointer(uint64(180 << 20)), SizeBytes: pointer(uint64(612 << 30)),
		DiskTotalBytes: pointer(uint64(1 << 40)), DiskAvailableBytes: pointer(uint64(300 << 30)), DiskFullSeconds: pointer(uint64(9e6)),
		Warnings: []string{say("unknown new rules activated")}, AskedAt: at(4 * time.Second),
		WalletServer: &basev1.WalletServer{Height: 800000, Target: 811204, Reason: say("it reads blocks")}}
	b.Parts = map[owner.Want]owner.Answered{
		{Part: owner.Peers}: {At: now, Peers: &basev1.ListPeersResponse{Peers: []*basev1.Peer{
			{Address: say("203.0.113.7:8333"), Software: say("/Satoshi:29.0.0/"), Height: pointer(uint64(924315)),
				ConnectedAt:   at(time.Hour),
				ReceivedBytes: 91 << 20, SentBytes: 12 << 20, PingMs: pointer(31.4)},
			{Address: say("[2001:db8::9]:8333"), Inbound: true, Software: say("/btcwire:0.5.0/btcd:0.26.2/")},
		}}},
		{Part: owner.Wallets, Subject: owner.WalletKind}: {At: now, Wallets: &basev1.GetWalletsResponse{Told: true, More: 3,
			Wallets: []*basev1.Wallet{
				{Address: say("192.168.1.44"), Since: at(20 * time.Minute)}}}},
		{Part: owner.NodeSettings}: {At: now, NodeSettings: &basev1.ChosenNode{Signed: true, HasOwnLines: true,
			Settings: &basev1.NodeSettings{Program: basev1.NodeSettings_PROGRAM_CORE, Network: basev1.Network_NETWORK_MAINNET,
				PruneGb: 100, CacheMib: 450}}},
		{Part: owner.Disks}: {At: now,
			Disks: &basev1.ListDisksResponse{Chain: &basev1.ChainDisk{State: basev1.ChainDisk_STATE_TROUBLE,
				Trouble: say("it is gone")},
				Disks: []*basev1.Disk{
					{Name: "mmcblk0", Model: "SD64G", SizeBytes: 64e9, Bus: "mmc", System: true, Refused: say("the Base runs from it")},
					{Name: "nvme0n1", Model: say("WD Blue SN580"), SerialEnd: say("7F2A"), SizeBytes: 2e12, Bus: "nvme",
						Content: say("an ext4 file system"),
						Health: &basev1.DiskHealth{Verdict: basev1.DiskHealth_VERDICT_FAILING, Reason: say("12 bad blocks"),
							UsedPercent: pointer(uint32(41))}},
					{Name: "sda", Model: say("Portable"), SizeBytes: 5e11, Bus: "usb", Small: true,
						Health: &basev1.DiskHealth{Verdict: basev1.DiskHealth_VERDICT_GOOD}},
				}}},
		{Part: owner.TimeZones}: {At: now, TimeZones: &basev1.ListTimeZonesResponse{Current: say("Europe/Zurich"),
			Names: []string{"Europe/Berlin", say("Europe/Zurich")}}},
		{Part: owner.Software}: {At: now, Newer: &owner.Newer{Version: say("1.4.0"), Changes: say("The node starts faster."),
			ClosesHole: true}, ListFrom: say("https://example.org/feed"),
			Update: &basev1.GetUpdateResponse{InstalledVersion: say("1.3.0"), TakesUpdates: true, OtherVersion: say("1.2.9"),
				DebianWaiting: []string{say("openssl 3.5.4-1"), say("nginx 1.26.3-3")},
				Update: &basev1.Update{Id: "u1", FromVersion: say("1.2.9"), ToVersion: say("1.3.0"),
					Phase: basev1.Update_PHASE_CHECKING, Step: say("asking the services"),
					Reason: say("the node was slow"), BeganAt: at(time.Minute), AwaitsApp: true}}},
		{Part: owner.Logs, Subject: "nginx"}: {At: now, Lines: []*basev1.LogEntry{
			{Time: at(time.Minute), Service: "nginx", Priority: 6, Text: say("started")},
			{Time: at(time.Minute), Service: "nginx", Priority: 3,
				Text: say("limiting connections by zone \"addr\", client: 203.0.113.9")}}},
		{Part: owner.Changes}: {At: now, Changes: changes(say)},
	}
	return b
}

// changes is a log with a change of each kind of actor, and a word that this App does not know.
func changes(say func(string) string) *client.ChangeLog {
	log := &client.ChangeLog{Missed: true}
	for n, e := range []*systemv1.ChangeEntry{
		{Actor: systemv1.ChangeEntry_ACTOR_BASE, What: changelog.Begun},
		{Actor: systemv1.ChangeEntry_ACTOR_OWNER, AppName: say("laptop"), What: changelog.Posture, Detail: say("revision 7")},
		{Actor: systemv1.ChangeEntry_ACTOR_APP, AppName: say("Anna's phone"), What: changelog.Service, Detail: say("restart nginx"),
			Failure: say("it did not start")},
		{Actor: systemv1.ChangeEntry_ACTOR_CONSOLE, What: changelog.AcceptPairing},
		{Actor: systemv1.ChangeEntry_ACTOR_ROOT, What: say("tomorrow's word")},
	} {
		e.Number, e.Time = uint64(n)+1, now.Add(time.Duration(n-9)*time.Hour).Unix()
		log.Entries = append(log.Entries, e)
	}
	log.Last = uint64(len(log.Entries))
	return log
}

func init() {
	long := strings.Repeat("Donaudampfschifffahrtsgesellschaftskapitän", 6)
	states["owner"] = owner.State{Bases: []owner.Base{fullBase(basev1.Role_ROLE_OWNER, "")}}
	states["operator"] = owner.State{Bases: []owner.Base{fullBase(basev1.Role_ROLE_OPERATOR, "")}}
	states["viewer"] = owner.State{Bases: []owner.Base{fullBase(basev1.Role_ROLE_VIEWER, "")}}
	states["markup"] = owner.State{Bases: []owner.Base{fullBase(basev1.Role_ROLE_OWNER, hostile)}}
	states["long"] = owner.State{Bases: []owner.Base{fullBase(basev1.Role_ROLE_OWNER, long)}}
}

// deedsOf are the deeds by the least role: that of the method that each asks of a Base (docs/protocol.md).
var deedsOf = map[basev1.Role][]owner.DeedKind{
	basev1.Role_ROLE_VIEWER: {owner.CheckReleases, owner.CheckWallet, owner.Forget},
	basev1.Role_ROLE_OPERATOR: {owner.DebianUpdates, owner.DisableService, owner.EnableService, owner.Reboot, owner.RestartService,
		owner.SetTimeZone, owner.StartService, owner.StopService},
	basev1.Role_ROLE_OWNER: {owner.AcceptApp, owner.AddSSHKeys, owner.ChangeNode, owner.CloseWindow, owner.ConfirmTry,
		owner.EnableSSH, owner.EndLease, owner.Expose, owner.FactoryReset, owner.Fix, owner.Install, owner.InstallCore,
		owner.InstallNewer, owner.LiftBan, owner.NodeOffline, owner.NodeOnline, owner.OpenWindow, owner.PowerOff,
		owner.PreviousVersion, owner.Reindex, owner.RemoveSSHKey, owner.Rename, owner.RenameApp, owner.Revoke, owner.Resync,
		owner.SetRole, owner.Unlock, owner.UseDisk},
}

// mayDo tells whether a Base does the deed for a role.
func mayDo(role basev1.Role, kind owner.DeedKind) bool {
	for least, deeds := range deedsOf {
		if slices.Contains(deeds, kind) {
			return role >= least
		}
	}
	return false
}

// unoffered are the deeds that no page of a Base offers as a form of its own, and why.
var unoffered = map[owner.DeedKind]string{
	owner.Pair:     "its page is that of a pairing",
	owner.Lockdown: "its button is in the header",
}

// offered are the deeds that the forms of the pages of a Base begin, with a form of each.
func offered(t *testing.T, b owner.Base) map[owner.DeedKind]*html.Node {
	t.Helper()
	forms := map[owner.DeedKind]*html.Node{}
	for _, each := range screens {
		p := renderer(words.English).Page(addressOf(b, each.name)+"?service=nginx", owner.State{Bases: []owner.Base{b}}, now)
		for _, part := range p.Parts {
			tree, err := html.Parse(strings.NewReader(string(part.HTML)))
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range elements(tree) {
				if name, is := strings.CutPrefix(attribute(n, "action"), "/base/"+b.ID()+"/deed/"); is {
					name, from, _ := strings.Cut(name, "?from=")
					if from != each.name {
						t.Errorf("%s offers a deed that leads back to %q", each.name, from)
					}
					kind, known := owner.ParseDeed(name)
					if !known {
						t.Errorf("%s offers %q, which is no deed", each.name, name)
					}
					forms[kind] = n
				}
			}
		}
	}
	return forms
}

// A person sees no button that the Base would refuse, and an owner sees each.
func TestPagesOfferWhatTheRoleMayDoAndNothingElse(t *testing.T) {
	toOwner := map[owner.DeedKind]*html.Node{}
	for _, role := range roles {
		open, closed, locked := fullBase(role, ""), fullBase(role, ""), fullBase(role, "")
		closed.Look.Access.Doors = closed.Look.Access.Doors[:1]
		closed.Look.Access.SSH, closed.Look.Window = false, &basev1.Window{}
		closed.Look.Access.Trying = true
		locked.Look.Access.Lockdown = true
		for _, b := range []owner.Base{open, closed, locked} {
			for kind, form := range offered(t, b) {
				if !mayDo(role, kind) {
					t.Errorf("a page offers %q to a person with the role %s, which the Base refuses", kind, role.Name())
				}
				if role == basev1.Role_ROLE_OWNER {
					toOwner[kind] = form
				}
			}
		}
	}
	for _, kind := range owner.Kinds() {
		if is := toOwner[kind] != nil; is == (unoffered[kind] != "") {
			t.Errorf("a page offers an owner %q: %t; why not: %q", kind, is, unoffered[kind])
		}
	}
}

// The Base's table decides which buttons a service has.
func TestAServiceHasTheButtonsThatTheBaseLets(t *testing.T) {
	p := renderer(words.English).Page("/base/"+fullBase(basev1.Role_ROLE_OWNER, "").ID()+"/services", states["owner"], now)
	tree := document(t, "services", p)
	got := map[string][]string{}
	for _, n := range elements(tree) {
		if row := enclosing(n, "tr"); n.Data == "button" && row != nil {
			got[attribute(row, "data-key")] = append(got[attribute(row, "data-key")], textOf(n))
		}
	}
	for name, want := range map[string][]string{"firewall": nil, "nginx": {"Restart"}, "mdns": {"Start", "Switch on"},
		nodeService:     {"Start", "Switch off"},
		"wallet-server": {"Restart", "Stop", "Switch off"}} {
		if !slices.Equal(got[name], want) {
			t.Errorf("%s has the buttons %q, not %q", name, got[name], want)
		}
	}
}

// Only what a person looks at is asked of a Base.
func TestPagesWantWhatTheyShow(t *testing.T) {
	s := states["owner"]
	for address, want := range map[string][]owner.Want{
		"/services":               nil,
		"/services?service=nginx": {{Part: owner.Logs, Subject: "nginx"}},
		"/log":                    {{Part: owner.Changes}},
		"/people":                 nil,
	} {
		if _, got := renderer(words.English).Wants("/base/"+s.Bases[0].ID()+address, s); !slices.Equal(got, want) {
			t.Errorf("%s wants %v, not %v", address, got, want)
		}
	}
	viewer := states["viewer"]
	if _, got := renderer(words.English).Wants("/base/"+viewer.Bases[0].ID()+"/services?service=nginx", viewer); got != nil {
		t.Errorf("a viewer's page asks for logs: %v", got)
	}
}

// A page says what it does not know yet, and why it does not.
func TestPagesSayWhatIsMissing(t *testing.T) {
	b := fullBase(basev1.Role_ROLE_OWNER, "")
	asked, failed := b, b
	asked.Parts, failed.Parts = nil, map[owner.Want]owner.Answered{}
	for want := range b.Parts {
		failed.Parts[want] = owner.Answered{At: now, Err: errors.New("the Base has hung up")}
	}
	for _, name := range []string{"updates", "log", "machine", "services"} {
		for _, c := range []struct {
			base owner.Base
			want string
		}{{asked, " is "}, {failed, "The Base has hung up."}} {
			p := renderer(words.English).Page(addressOf(c.base, name)+"?service=nginx", owner.State{Bases: []owner.Base{c.base}}, now)
			tree := document(t, "missing-"+name, p)
			check(t, tree)
			if !strings.Contains(textOf(tree), c.want) {
				t.Errorf("%s does not say %q: %s", name, c.want, textOf(tree))
			}
		}
	}
}

func TestAWalletHasWhatItNeedsToConnect(t *testing.T) {
	s := states["viewer"]
	text := textOf(document(t, "wallet", renderer(words.English).Page("/base/"+s.Bases[0].ID()+"/node", s, now)))
	for _, want := range []string{"192.168.1.20:50002:s", "electrum --oneserver --server 192.168.1.20:50002:s",
		strings.TrimSuffix(strings.Repeat("A1:B2:", 16), ":"),
		"Only these networks reach it: 192.168.1.0/24", "192.168.1.44", "And 3 more."} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
}

// The page has the command that logs in, until when it works, and the fingerprint that ssh must show. Without that
// fingerprint the page has no command.
func TestAPersonHasWhatItTakesToLogInBySSH(t *testing.T) {
	const command, differ = "ssh base@192.168.1.20", "If they differ, answer “no”."
	for name, c := range map[string]struct {
		change     func(*owner.Base)
		says, not  []string
		inLanguage words.Language
	}{
		"open": {func(*owner.Base) {}, []string{command, hostKeyFingerprint, "SSH is open until 12:09.", differ,
			"find out which machine has the address 192.168.1.20.", "ssh-keygen -R 192.168.1.20"}, nil, words.English},
		"in German": {func(*owner.Base) {}, []string{command, hostKeyFingerprint, "SSH ist offen bis 12:09.", "antworten Sie „no“.",
			"welche Maschine die Adresse 192.168.1.20 hat."}, nil, words.German},
		"for days": {func(b *owner.Base) { b.Look.Access.SSHLeft = 50 * time.Hour },
			[]string{"SSH is open until 2026-11-30 13:59."}, nil, words.English},
		"on a link": {func(b *owner.Base) { b.Addresses = []string{"[fe80::1%eth0]:8845"} },
			[]string{"ssh base@fe80::1%eth0", "ssh-keygen -R fe80::1%eth0"}, []string{"[fe80"}, words.English},
		"without a host key": {func(b *owner.Base) { b.Look.Access.HostKey = nil },
			[]string{"The Base has signed no host key yet"}, []string{"ssh base@", differ}, words.English},
		"without an address": {func(b *owner.Base) { b.Addresses = nil },
			[]string{"This App does not know an address of the Base yet."}, []string{"ssh base@", differ}, words.English},
		"closed": {func(b *owner.Base) { b.Look.Access.SSH = false }, nil,
			[]string{"Log in by SSH", "ssh base@", hostKeyFingerprint}, words.English},
	} {
		b := openBase()
		c.change(&b)
		p := renderer(c.inLanguage).Page(addressOf(b, "security"), owner.State{Bases: []owner.Base{b}}, now)
		text := textOf(document(t, "login."+c.inLanguage.Tag, p))
		for _, want := range c.says {
			if !strings.Contains(text, want) {
				t.Errorf("%s: the page does not say %q", name, want)
			}
		}
		for _, unwanted := range c.not {
			if strings.Contains(text, unwanted) {
				t.Errorf("%s: the page says %q", name, unwanted)
			}
		}
	}
}

// What ends on another day says which one: in its picture, and where the script does not count down yet.
func TestTheEndOnAnotherDayHasItsDate(t *testing.T) {
	b := openBase()
	b.Look.Access.SSHLeft = 50 * time.Hour
	for _, c := range []struct {
		language      words.Language
		picture, list string
	}{{words.English, "until 30 Nov", "until 2026-11-30 13:59:55"}, {words.German, "bis 30.11.", "bis 30.11.2026, 13:59:55"}} {
		p := renderer(c.language).Page(addressOf(b, "security"), owner.State{Bases: []owner.Base{b}}, now)
		tree := document(t, "day-security."+c.language.Tag, p)
		var picture, counted bool
		for _, n := range elements(tree) {
			picture = picture || n.Data == "text" && textOf(n) == c.picture
			counted = counted || n.Data == "time" && textOf(n) == c.list
		}
		if !picture || !counted {
			t.Errorf("the picture says %q: %t; the list says %q: %t", c.picture, picture, c.list, counted)
		}
	}
}

// An App's word for who changed something is marked: only an owner signs.
func TestTheLogTellsWhatIsSigned(t *testing.T) {
	s := states["owner"]
	text := textOf(document(t, "log", renderer(words.English).Page("/base/"+s.Bases[0].ID()+"/log", s, now)))
	for _, want := range []string{"Anna's phone (not signed)", "laptop changed how open the Base is", "not done: it did not start",
		"tomorrow's word"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q: %s", want, text)
		}
	}
	if strings.Contains(text, "laptop (not signed)") {
		t.Error("a signed change is marked as unsigned")
	}
}

// Each kind of entry has a sentence in each language.
func TestEachWordOfTheLogHasASentence(t *testing.T) {
	for _, l := range words.Languages() {
		for what := range changelog.Words {
			if key := "log.what." + what; l.Say(key) == key {
				t.Errorf("%s has no sentence for %q", l.Name, what)
			}
		}
	}
}
