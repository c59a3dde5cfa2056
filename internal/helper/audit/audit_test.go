package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/firewall"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/listeners"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/units"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
	"github.com/BitBoxSwiss/bitbox-base/packaging"
)

// fake is a machine that answers from memory. The output of its programs was recorded on Debian
// 12; test/stage asks the real ones.
type fake struct {
	output  map[string]Output // by the arguments
	input   map[string]string // what was given to read
	files   map[string]string
	stat    map[string]File
	units   map[string]units.State
	number  uint64
	drift   []generation.Drift
	now     time.Time
	reapply int
	leftOut []string
	ran     []string // every command, in order
	// fails makes everything fail: no question gets an answer.
	fails error
	// closes is what closing a file says.
	closes error
	// obeys is called for commands that have no output above.
	obeys func(argv string) bool
}

func (f *fake) Run(ctx context.Context, input string, argv ...string) (Output, error) {
	if f.fails != nil {
		return Output{}, f.fails
	}
	command := strings.Join(argv, " ")
	f.ran = append(f.ran, command)
	if f.input == nil {
		f.input = map[string]string{}
	}
	f.input[command] = input
	if argv[0] == systemctl && argv[1] == "show" {
		return Output{Stdout: f.show(argv[5:])}, nil
	}
	if out, known := f.output[command]; known {
		return out, nil
	}
	if f.obeys != nil && f.obeys(command) {
		return Output{}, nil
	}
	return Output{Stderr: "this machine knows no " + command, Code: 127}, nil
}

// show prints units as systemctl does.
func (f *fake) show(names []string) string {
	var blocks []string
	for _, name := range names {
		u, known := f.units[name]
		if !known {
			u = units.State{"LoadState": "not-found", "ActiveState": "inactive"}
		}
		block := ""
		for _, key := range slices.Sorted(maps.Keys(u)) {
			block += key + "=" + u[key] + "\n"
		}
		blocks = append(blocks, block)
	}
	return strings.Join(blocks, "\n")
}

func (f *fake) ReadFile(path string) ([]byte, error) {
	if f.fails != nil {
		return nil, f.fails
	}
	content, known := f.files[path]
	if !known {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return []byte(content), nil
}

func (f *fake) Lstat(path string) (File, error) {
	if f.fails != nil {
		return File{}, f.fails
	}
	file, known := f.stat[path]
	if !known {
		return File{}, &fs.PathError{Op: "lstat", Path: path, Err: fs.ErrNotExist}
	}
	return file, nil
}

func (f *fake) ReadDir(path string) ([]string, error) {
	var names []string
	for name := range f.stat {
		if filepath.Dir(name) == path {
			names = append(names, filepath.Base(name))
		}
	}
	return names, f.fails
}

func (f *fake) Walk(_ context.Context, roots []string, visit func(string, File)) []string {
	if f.fails != nil {
		return []string{roots[0] + " cannot be read"}
	}
	for _, path := range slices.Sorted(maps.Keys(f.stat)) {
		if slices.ContainsFunc(roots, func(root string) bool { return strings.HasPrefix(path, root+"/") }) {
			visit(path, f.stat[path])
		}
	}
	return f.leftOut
}

func (f *fake) CloseFile(root, path string) error {
	f.ran = append(f.ran, "close "+path+" in "+root)
	return f.closes
}

func (f *fake) Generation(generation.Files) (uint64, []generation.Drift, error) {
	return f.number, f.drift, f.fails
}

func (f *fake) Now() time.Time { return f.now }

func (f *fake) Reapply(context.Context) error {
	f.reapply++
	return f.fails
}

func recorded(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// factory is the expectation for a new Base.
func factory() Expectation {
	return Expectation{Generation: 7, Posture: posture.Effective{
		NodeName:  "BitBox Base",
		Endpoints: []posture.Endpoint{{Kind: posture.KindEntry, Port: posture.EntryPort}},
		Bans:      posture.Factory().Bans,
	}}
}

// withSSH is factory with SSH switched on.
func withSSH(t *testing.T) Expectation {
	t.Helper()
	key, err := sshkey.Parse("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJqIYQnwyD7gzdmAzWFpdIRYvBOuKVqJj7kOQmVhhmyM owner")
	if err != nil {
		t.Fatal(err)
	}
	want := factory()
	want.Posture.SSH = &posture.SSH{Keys: []sshkey.Key{key}, Remaining: time.Hour}
	return want
}

// base returns a machine that is in order.
func base(t *testing.T) *fake {
	t.Helper()
	f := &fake{
		now: time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC), number: 7,
		output: map[string]Output{}, files: map[string]string{}, stat: map[string]File{}, units: map[string]units.State{},
	}
	f.files["/etc/passwd"], f.files["/etc/shadow"], f.files["/etc/group"] = recorded(t, "passwd"), recorded(t, "shadow"), recorded(t, "group")
	accounts, err := readAccounts(f)
	if err != nil {
		t.Fatal(err)
	}
	f.print(recorded(t, "ss"), listeners.Command...)

	policy, err := generation.FirewallFor(factory().Posture, generation.Machine{})
	if err != nil {
		t.Fatal(err)
	}
	rules, err := firewall.Render(policy)
	if err != nil {
		t.Fatal(err)
	}
	numbered := func(rules string) string {
		for _, user := range accounts.users {
			rules = strings.ReplaceAll(rules, "--uid-owner "+user.name+" ", fmt.Sprintf("--uid-owner %d ", user.uid))
		}
		return strings.ReplaceAll(rules, "DROP [0:0]", "DROP [17:2940]")
	}
	f.print(numbered(rules.V4), iptables, "-t", "filter")
	f.files["/etc/os-release"] = osRelease
	f.print(numbered(rules.V6), ip6tables, "-t", "filter")
	f.print(recorded(t, "nft"), listRuleset...)

	definitions, err := definitions()
	if err != nil {
		t.Fatal(err)
	}
	pid := 100
	for name, text := range definitions {
		f.files[unitDirectory+name] = text
		f.units[name] = f.liveUnit(name, text, slices.Contains(alwaysActive, name), pid, accounts)
		pid++
	}
	for _, name := range slices.Concat(debianSSH, debianServices) {
		f.units[name] = units.State{"LoadState": "masked", "ActiveState": "inactive"}
	}
	master := f.units[generation.ProxyUnit].Number("MainPID")
	f.files[fmt.Sprintf("/proc/%d/cmdline", master)] = "nginx: master process /usr/sbin/nginx -e stderr -c " +
		generation.Current(generation.ProxyConfig) + "\x00"
	f.files[fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", master)] = "901 902 "
	f.files["/proc/901/status"] = f.files[fmt.Sprintf("/proc/%d/status", master)]

	settings := ""
	for _, s := range sshaccess.Settings(generation.SSHConfigFor()) {
		settings += strings.ToLower(s.Keyword) + " " + s.Value + "\n"
	}
	f.print(settings, effectiveSSH...)
	f.print(recorded(t, "fail2ban"), fail2ban, "-i")

	for _, o := range ownedFiles {
		uid, err := accounts.uid(o.user)
		if err != nil {
			t.Fatal(err)
		}
		gid, err := accounts.gid(o.group)
		if err != nil {
			t.Fatal(err)
		}
		f.stat[o.path] = File{Mode: o.mode, UID: uid, GID: gid}
	}
	for _, path := range knownSetuid {
		f.stat[path] = File{Mode: fs.ModeSetuid | 0o755}
	}
	f.stat[ipv6Sockets] = File{}
	f.list(f.now.Add(-time.Hour))
	f.print("", simulate...)
	for _, s := range sysctls(packaging.Sysctl) {
		f.files["/proc/sys/"+strings.ReplaceAll(s.name, ".", "/")] = s.value + "\n"
	}
	return f
}

// list puts Debian's list of security updates there, made at the given time. The file's own time
// is now.
func (f *fake) list(made time.Time) {
	const path = aptLists + "/deb.debian.org_debian-security_dists_trixie-security_InRelease"
	f.stat[path] = File{Mode: 0o644, Modified: f.now}
	f.files[path] = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nOrigin: Debian\nDate: " +
		made.UTC().Format("Mon, 02 Jan 2006 15:04:05 MST") + "\nComponents: updates/main\n"
}

func (f *fake) print(text string, argv ...string) {
	f.output[strings.Join(argv, " ")] = Output{Stdout: text}
}

// replace changes what a program prints, and makes sure that it did.
func (f *fake) replace(t *testing.T, old, new string, argv ...string) {
	t.Helper()
	command := strings.Join(argv, " ")
	text := strings.Replace(f.output[command].Stdout, old, new, 1)
	if text == f.output[command].Stdout {
		t.Fatalf("%s does not print %q", command, old)
	}
	f.output[command] = Output{Stdout: text}
}

// liveUnit is what systemd says of a unit with this text.
func (f *fake) liveUnit(name, text string, active bool, pid int, a accounts) units.State {
	u := units.State{"LoadState": "loaded", "ActiveState": "inactive", "FragmentPath": "/lib/systemd/system/" + name, "DropInPaths": "",
		"NeedDaemonReload": "no", "MainPID": "0"}
	d := parseDefinition(text)
	for _, property := range plainProperties {
		if v := d[property]; len(v) > 0 {
			u[property] = v[len(v)-1]
		}
	}
	for property, name := range extended {
		u[name] = u[property]
		u[property] = "yes"
		if u[name] == "yes" && property == "PrivateTmp" {
			u[name] = "connected"
		}
	}
	for _, property := range mountProperties {
		var printed []string
		for field := range strings.FieldsSeq(strings.Join(d[property], " ")) {
			if property != "TemporaryFileSystem" {
				field += ":" + strings.TrimPrefix(field, "-") + ":rbind"
			}
			printed = append(printed, field)
		}
		u[property] = strings.Join(printed, " ")
	}
	for _, property := range setProperties {
		u[property] = strings.ToLower(strings.Join(d[property], " "))
	}
	if u["RestrictAddressFamilies"] == "none" {
		u["RestrictAddressFamilies"] = ""
	}
	if len(d["SystemCallFilter"]) > 0 {
		u["SystemCallFilter"] = "read write"
	}
	if !active {
		return u
	}
	u["ActiveState"] = "active"
	if !strings.HasSuffix(name, ".service") || name == generation.FirewallUnit {
		return u
	}
	u["MainPID"] = strconv.Itoa(pid)
	uid := 0
	if v := d["User"]; len(v) > 0 {
		uid, _ = a.uid(v[0])
	}
	f.files[fmt.Sprintf("/proc/%d/status", pid)] = fmt.Sprintf(
		"Name:\tx\nUid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d\nCapInh:\t0000000000000000\nCapPrm:\t%016[2]x\nCapEff:\t%016[2]x\nCapBnd:\t%016[2]x\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n",
		uid, capabilityMask(strings.Join(d["CapabilityBoundingSet"], " ")))
	return u
}

// ids returns the ids that a complete run finds.
func ids(system System, want Expectation) []string {
	found := []string{}
	for _, f := range Run(context.Background(), system, want) {
		found = append(found, f.ID)
	}
	slices.Sort(found)
	return found
}

// attack is a change to a machine, and the findings that it must cause.
type attack struct {
	do    func(t *testing.T, f *fake)
	finds []string
}

// find applies each attack to a machine that is otherwise in order. The audit must find exactly
// what the attack lists.
func find(t *testing.T, attacks map[string]attack) {
	t.Helper()
	for name, a := range attacks {
		t.Run(name, func(t *testing.T) {
			f := base(t)
			a.do(t, f)
			if got := ids(f, factory()); !slices.Equal(got, a.finds) {
				t.Errorf("the audit finds %v, not %v", got, a.finds)
				for _, finding := range Run(context.Background(), f, factory()) {
					t.Logf("%s: %s", finding.ID, finding.Found)
				}
			}
		})
	}
}

func TestABaseInOrderHasNoFinding(t *testing.T) {
	for _, f := range Run(context.Background(), base(t), factory()) {
		t.Errorf("%s: %s", f.ID, f.Found)
	}
}

// Silence must mean that all is well, so a question without an answer is reported.
func TestEachCheckWithoutAnAnswerIsAFinding(t *testing.T) {
	f := base(t)
	f.fails = errors.New("nobody answers")
	var want []string
	for _, c := range checks {
		switch c.name {
		case "endpoints": // it asks nobody
		case "loose-files": // it has found what it could read
			want = append(want, idLeftOut)
		default:
			want = append(want, unchecked+c.name)
		}
	}
	slices.Sort(want)
	if got := ids(f, factory()); !slices.Equal(got, want) {
		t.Errorf("the audit finds %v, not %v", got, want)
	}
}

// A program that fails, or whose output cannot be parsed, must not be mistaken for one that found
// nothing.
func TestEachProgramThatFailsIsAFinding(t *testing.T) {
	for command := range base(t).output {
		for name, out := range map[string]Output{"code": {Code: 1}, "nonsense": {Stdout: "\x00 nonsense\n"}} {
			if strings.HasPrefix(command, aptGet) && name == "nonsense" {
				continue // it prints a line for each update, and else what it likes
			}
			f := base(t)
			f.output[command] = out
			if got := ids(f, factory()); len(got) == 0 {
				t.Errorf("%s: %s was taken to mean that all is well", command, name)
			}
		}
	}
}

// An owner has the App, and on the image nobody is root.
func TestAdviceThatNeedsRootSaysSo(t *testing.T) {
	commands := 0
	for _, k := range kinds {
		for _, at := range regexp.MustCompile("`[^`]+`").FindAllStringIndex(k.fix, -1) {
			commands++
			command, before := k.fix[at[0]+1:at[1]-1], k.fix[:at[0]]
			if !strings.HasPrefix(command, "bitbox-app ") && !strings.Contains(before, onDebian) {
				t.Errorf("%s: no owner can run %q", k.id, command)
			}
		}
		if strings.Contains(k.fix, onDebian) && !strings.Contains(k.fix, onImage) {
			t.Errorf("%s: it does not say what to do on the image", k.id)
		}
	}
	if commands < 5 {
		t.Errorf("all advice has only %d commands", commands)
	}
}

func TestAHangingCheckIsEnded(t *testing.T) {
	slow := check{name: "sockets", limit: time.Millisecond, run: func(ctx context.Context, _ System, _ Expectation) ([]difference, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	if f := slow.ask(context.Background(), base(t), factory()); len(f) != 1 || f[0].ID != "unchecked-sockets" {
		t.Errorf("found %v", f)
	}
}

func TestTheTablesAgree(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range kinds {
		if seen[k.id] || strings.HasPrefix(k.id, unchecked) {
			t.Errorf("the id %s is used twice", k.id)
		}
		seen[k.id] = true
		checkOf(k.check) // panics if there is none
		for _, text := range []string{k.title, k.expected, k.why, k.fix} {
			if text == "" {
				t.Errorf("%s has an empty text", k.id)
			}
		}
		if k.repair != nil && k.outside != nil {
			t.Errorf("%s has two repairs", k.id)
		}
		if k.severity < Info || k.severity > Critical {
			t.Errorf("%s has no severity", k.id)
		}
	}
}

// The ids are an API, and people look them up.
func TestEachFindingIsDocumented(t *testing.T) {
	content, err := os.ReadFile("../../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for _, k := range kinds {
		fixable := "no"
		if k.fixable() {
			fixable = "yes"
		}
		row := fmt.Sprintf("| `%s` | %s | %s | %s |\n", k.id, k.severity, k.title, fixable)
		if !strings.Contains(string(content), row) {
			t.Errorf("docs/audit.md lacks the row\n%s", row)
		}
		rows++
	}
	if got := strings.Count(string(content), "\n| `"); got != rows {
		t.Errorf("docs/audit.md lists %d findings; there are %d", got, rows)
	}
}

func TestTheMostSevereFindingComesFirst(t *testing.T) {
	f := base(t)
	delete(f.stat, aptLists+"/deb.debian.org_debian-security_dists_trixie-security_InRelease") // info
	f.units["nginx.service"]["LoadState"] = "loaded"                                           // warning
	f.number = 6                                                                               // critical
	var severities []Severity
	for _, finding := range Run(context.Background(), f, factory()) {
		severities = append(severities, finding.Severity)
	}
	if !slices.Equal(severities, []Severity{Critical, Warning, Info}) {
		t.Errorf("the order is %v", severities)
	}
}

// Text that somebody else wrote must not reach a terminal as it is, nor fill a report.
func TestFoundIsPrintableAndBounded(t *testing.T) {
	d := difference{id: idListener}
	for range 100 {
		d.found = append(d.found, "\x1b[2J\u202e"+strings.Repeat("x", 10_000)+"\xff")
	}
	found := d.finding().Found
	if len(found) > (maxFound+1)*(maxFoundLine+10) || !strings.HasSuffix(found, "and 80 more") {
		t.Errorf("found has %d bytes and ends with %q", len(found), found[len(found)-20:])
	}
	if strings.ContainsAny(found, "\x1b\u202e") {
		t.Errorf("found has control characters: %q", found[:40])
	}
}

func TestFixRefusesAnUnknownId(t *testing.T) {
	f := base(t)
	for _, id := range []string{"", "nope", "unchecked-nope", "../../etc", "password; rm -rf /", "-x", "firewall-ipv4\n"} {
		if err := Fix(context.Background(), f, factory(), id); !errors.Is(err, ErrUnknown) {
			t.Errorf("%q: %v", id, err)
		}
		if err := Repair(context.Background(), f, id); !errors.Is(err, ErrUnknown) {
			t.Errorf("repair %q: %v", id, err)
		}
	}
	if len(f.ran) > 0 {
		t.Errorf("something was run: %q", f.ran)
	}
}

func TestFixChangesNothingThatIsInOrder(t *testing.T) {
	for _, k := range kinds {
		f := base(t)
		err := Fix(context.Background(), f, factory(), k.id)
		switch {
		case !k.fixable() && !errors.Is(err, ErrByHand):
			t.Errorf("%s: %v", k.id, err)
		case k.fixable() && !errors.Is(err, ErrNothing):
			t.Errorf("%s: %v", k.id, err)
		}
		if f.reapply > 0 {
			t.Errorf("%s: the posture was applied again", k.id)
		}
	}
}

func TestAFixThatDoesNotHelpSaysSo(t *testing.T) {
	f := base(t)
	f.number = 6
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := Fix(ctx, f, factory(), idGenerationNumber); !errors.Is(err, ErrStill) || f.reapply != 1 {
		t.Errorf("%v, after %d tries", err, f.reapply)
	}
}
