//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/proof"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/terminal"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/coretest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/machinetest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
)

var updateDocuments = flag.Bool("update", false, "rewrite the generated parts of docs/app")

const jsonDocument = "../../docs/app/json.md"

// shapes has the output of each command with --json: a value of its type, nil for nothing. The
// test fails for a command without a row, and for a change of a type that is not in
// docs/app/json.md (go test ./cmd/bitbox-app -run JSON -update writes it there).
var shapes = map[string]any{
	"bitbox-app apps list":   &basev1.ListAppsResponse{},
	"bitbox-app apps rename": &basev1.RenameAppResponse{},
	"bitbox-app apps revoke": &basev1.App{},
	"bitbox-app apps role":   changed{},
	"bitbox-app audit":       &basev1.RunAuditResponse{},
	"bitbox-app audit fix": struct {
		Fixed string `json:"fixed"`
	}{},
	"bitbox-app bans lift": struct {
		Lifted string `json:"lifted"`
	}{},
	"bitbox-app bans list": &basev1.ListBansResponse{},
	"bitbox-app disk list": &basev1.ListDisksResponse{},
	"bitbox-app disk use": struct {
		Disk string `json:"disk"`
	}{},
	"bitbox-app bases":         []basis{},
	"bitbox-app bases --check": []checkedBasis{},
	"bitbox-app dashboard":     nil,
	"bitbox-app window":        nil,
	"bitbox-app discover":      []nearby{},
	"bitbox-app exit-codes":    nil,
	"bitbox-app expose":        changed{},
	"bitbox-app factory-reset": struct {
		Reset string `json:"reset"`
	}{},
	"bitbox-app forget": struct {
		Forgotten string `json:"forgotten"`
	}{},
	"bitbox-app lockdown":  changed{},
	"bitbox-app provision": provisionedJSON{},
	"bitbox-app log":       loggedJSON{},
	"bitbox-app log verify": struct {
		Verified  bool   `json:"verified"`
		Entries   int    `json:"entries"`
		Last      uint64 `json:"last"`
		LastHash  string `json:"lastHash"`
		Forgotten uint64 `json:"forgotten"`
	}{},
	"bitbox-app logs": &basev1.LogEntry{},
	"bitbox-app name": struct {
		changed
		Name string `json:"name,omitempty"`
	}{},
	"bitbox-app node blocks":             &basev1.Block{},
	"bitbox-app node fees":               &basev1.GetFeesResponse{},
	"bitbox-app node install":            nodeChanged{},
	"bitbox-app node offline":            changed{},
	"bitbox-app node online":             changed{},
	"bitbox-app node peers":              &basev1.ListPeersResponse{},
	"bitbox-app node reindex":            nodeChanged{},
	"bitbox-app node restart":            &basev1.ChangeServiceResponse{},
	"bitbox-app node resync":             nodeChanged{},
	"bitbox-app node settings":           &basev1.ChosenNode{},
	"bitbox-app node settings --program": nodeSettingsChanged{},
	"bitbox-app node tx":                 foundTx{},
	"bitbox-app wallet":                  shownWallet{},
	"bitbox-app wallet check":            owner.CheckedWallet{},
	"bitbox-app node show":               &basev1.GetNodeResponse{},
	"bitbox-app pair":                    pairEvent{},
	"bitbox-app pairing accept":          acceptEvent{},
	"bitbox-app pairing close":           &basev1.Window{},
	"bitbox-app pairing open":            &basev1.Window{},
	"bitbox-app pairing status":          &basev1.Window{},
	"bitbox-app posture back":            changed{},
	"bitbox-app posture confirm":         changed{},
	"bitbox-app posture diff":            changed{},
	"bitbox-app posture history":         []client.PostureEvent{},
	"bitbox-app posture show":            shown{},
	"bitbox-app posture unlock":          changed{},
	"bitbox-app reboot": struct {
		Rebooting bool `json:"rebooting,omitempty"`
		Rebooted  bool `json:"rebooted,omitempty"`
		Seconds   int  `json:"seconds,omitempty"`
	}{},
	"bitbox-app services disable": &basev1.ChangeServiceResponse{},
	"bitbox-app services enable":  &basev1.ChangeServiceResponse{},
	"bitbox-app services list":    &basev1.ListServicesResponse{},
	"bitbox-app services restart": &basev1.ChangeServiceResponse{},
	"bitbox-app services start":   &basev1.ChangeServiceResponse{},
	"bitbox-app services stop":    &basev1.ChangeServiceResponse{},
	"bitbox-app shutdown": struct {
		Off bool `json:"off"`
	}{},
	"bitbox-app ssh disable":          changed{},
	"bitbox-app ssh enable":           changed{},
	"bitbox-app ssh keys add":         changed{},
	"bitbox-app ssh keys known-hosts": owner.Opened{},
	"bitbox-app ssh keys list":        []shownKey{},
	"bitbox-app ssh keys remove":      changed{},
	"bitbox-app status":               &basev1.GetInfoResponse{},
	"bitbox-app status --history":     &basev1.GetHistoryResponse{},
	"bitbox-app timezone":             &basev1.ListTimeZonesResponse{},
	"bitbox-app unexpose":             changed{},
	"bitbox-app update": struct {
		Sent   uint64 `json:"sent,omitempty"`
		Size   uint64 `json:"size,omitempty"`
		Away   bool   `json:"away,omitempty"`
		ID     string `json:"id,omitempty"`
		Phase  string `json:"phase,omitempty"`
		Step   string `json:"step,omitempty"`
		Reason string `json:"reason,omitempty"`
	}{},
	"bitbox-app update --check":  checked{},
	"bitbox-app update --debian": &basev1.InstallDebianUpdatesResponse{},
	"bitbox-app update --status": &basev1.GetUpdateResponse{},
	"bitbox-app version": struct {
		SoftwareVersion string `json:"softwareVersion"`
		ProtocolVersion int    `json:"protocolVersion"`
	}{},
	"bitbox-app watch": &basev1.Event{},
}

// keys describes a value as JSON: each path to something that is not an object, and its type. A ?
// means that it may be absent, or null.
func keys(value any) map[string]string {
	found := map[string]string{}
	switch v := value.(type) {
	case nil:
	case proto.Message:
		messageKeys(found, "", v.ProtoReflect().Descriptor())
	default:
		typeKeys(found, "", reflect.TypeOf(value))
	}
	return found
}

func below(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func messageKeys(found map[string]string, path string, of protoreflect.MessageDescriptor) {
	for n := range of.Fields().Len() {
		field := of.Fields().Get(n)
		at := below(path, field.JSONName())
		switch {
		case field.IsList():
			at += "[]"
		case field.HasPresence():
			at += "?"
		}
		switch kind := field.Kind(); kind {
		case protoreflect.MessageKind:
			if field.Message().FullName() == "google.protobuf.Timestamp" {
				found[at] = "time"
				continue
			}
			if field.Message().Fields().Len() == 0 {
				found[at] = "{}"
			}
			messageKeys(found, at, field.Message())
		case protoreflect.EnumKind:
			found[at] = "name of " + string(field.Enum().Name())
		case protoreflect.BytesKind:
			found[at] = "base64"
		case protoreflect.BoolKind:
			found[at] = "true or false"
		case protoreflect.StringKind:
			found[at] = "text"
		case protoreflect.Int64Kind, protoreflect.Uint64Kind:
			found[at] = "number, as text"
		default:
			found[at] = "number"
		}
	}
}

func typeKeys(found map[string]string, path string, of reflect.Type) {
	switch kind := of.Kind(); {
	case of == reflect.TypeFor[time.Time]():
		found[path] = "time"
	case kind == reflect.Pointer:
		typeKeys(found, path, of.Elem())
	case kind == reflect.Slice:
		typeKeys(found, path+"[]", of.Elem())
	case kind == reflect.Struct:
		for n := range of.NumField() {
			field := of.Field(n)
			name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			switch {
			case name == "-" || !field.IsExported() && !field.Anonymous:
			case field.Anonymous && name == "":
				typeKeys(found, path, field.Type)
			default:
				if strings.Contains(options, "omitempty") {
					name += "?"
				}
				typeKeys(found, below(path, name), field.Type)
			}
		}
	case kind == reflect.Bool:
		found[path] = "true or false"
	case kind == reflect.String:
		found[path] = "text"
	default:
		found[path] = "number"
	}
}

// leaves are the commands that do something.
func leaves(c *cobra.Command) []string {
	var paths []string
	for _, sub := range c.Commands() {
		if sub.HasSubCommands() {
			paths = append(paths, leaves(sub)...)
		} else if sub.Name() != "help" {
			paths = append(paths, sub.CommandPath())
		}
	}
	return paths
}

// documented is the generated part of the document.
func documented() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		value := shapes[name]
		fmt.Fprintf(&b, "### `%s`\n\n", name)
		if value == nil {
			b.WriteString("Nothing.\n\n")
			continue
		}
		if message, ok := value.(proto.Message); ok {
			descriptor := message.ProtoReflect().Descriptor()
			file := descriptor.ParentFile().Path()
			fmt.Fprintf(&b, "[%s](../../api/%s)\n\n", descriptor.Name(), file)
		}
		b.WriteString("```\n")
		found := keys(value)
		widest := 0
		for path := range found {
			widest = max(widest, len(path))
		}
		for _, path := range slices.Sorted(maps.Keys(found)) {
			fmt.Fprintf(&b, "%-*s  %s\n", widest, path, found[path])
		}
		b.WriteString("```\n\n")
	}
	return strings.TrimSpace(b.String()) + "\n"
}

func TestJSONIsDocumented(t *testing.T) {
	root := (&program{in: os.Stdin, out: &terminal.Output{To: io.Discard}}).rootCommand()
	for _, path := range leaves(root) {
		if _, ok := shapes[path]; !ok {
			t.Errorf("%s: what does it print with --json? Add a row to shapes, and run this test with -update", path)
		}
	}
	document, err := os.ReadFile(jsonDocument)
	if err != nil {
		t.Fatal(err)
	}
	const heading = "## What each command prints\n\n"
	before, now, ok := strings.Cut(string(document), heading)
	if !ok {
		t.Fatalf("%s has no heading %q", jsonDocument, strings.TrimSpace(heading))
	}
	want := documented()
	if *updateDocuments {
		if err := os.WriteFile(jsonDocument, []byte(before+heading+want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if now != want {
		t.Errorf("%s does not say what the commands print; a change that takes something away breaks others' scripts. To write it: go test ./cmd/bitbox-app -run JSONIsDocumented -update", jsonDocument)
	}
}

// seen lists the paths in printed JSON.
func seen(found map[string]bool, path string, value any) {
	switch v := value.(type) {
	case map[string]any:
		if len(v) == 0 {
			found[path] = true
		}
		for name, one := range v {
			seen(found, below(path, name), one)
		}
	case []any:
		for _, one := range v {
			seen(found, path+"[]", one)
		}
	case nil: // absent
	default:
		found[path] = true
	}
}

// The document describes the real output.
func TestJSONIsAsDocumented(t *testing.T) {
	a, dir := paired(t)
	second := t.TempDir()
	if err := pairInProcess(a, second, "Phone", basev1.Role_ROLE_OWNER); err != nil {
		t.Fatal(err)
	}
	if err := a.Services.Log("nginx", "a connection", 6); err != nil {
		t.Fatal(err)
	}
	a.Machine.Ban(bruteforce.Ban{Jail: "sshd", Addr: netip.MustParseAddr("192.0.2.7"), Since: time.Now(), Until: time.Now().Add(time.Hour)})
	listenForWallets(a.Machine, netip.MustParseAddrPort("192.168.1.20:40000"))
	a.Machine.Drift(&basev1.Finding{Id: "ssh-settings", Severity: basev1.Finding_SEVERITY_WARNING, Title: "Something is open",
		Expected: "closed", Found: "open", Why: "Because.", Fix: "Close it.", Fixable: true})
	release, err := machinetest.Release("1.1", machinetest.Architecture, 1<<20, false)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "good")
	if err := os.WriteFile(file, release, 0o600); err != nil {
		t.Fatal(err)
	}
	signed := coretest.New(t)
	a.Signers = signed.List(coretest.Builders...)
	b := nodetest.StartBtcd(t, "regtest")
	b.Generate(2)
	_, finder := b.ServeWallets()
	nodetest.ServeFinder(t, a.NodeSocket(), node.Config{Node: b.Node(), Interval: nodetest.Quick}, finder)
	nodetest.Eventually(t, "the node's blocks are seen", func() bool {
		return bytes.Contains(runJSON(t, dir, "node", "show"), []byte(`"height":"2"`))
	})
	a.Machine.SetDisks(&basev1.Disk{Name: "sda", Id: strings.Repeat("a1", 16), Model: "CT2000MX500SSD1", SerialEnd: "A1B2",
		SizeBytes: 2_000_398_934_016, Bus: "sata", Health: &basev1.DiskHealth{Verdict: basev1.DiskHealth_VERDICT_GOOD}})
	nodetest.Eventually(t, "the disk is seen", func() bool { return bytes.Contains(runJSON(t, dir, "disk", "list"), []byte("A1B2")) })
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8Yq0u3MG3Bz7Nv0YQmYzBLLp6Uj3EIPKGLgZ1nQk9L anna"
	ran := map[string]bool{"bitbox-app pair": true, "bitbox-app pairing accept": true, "bitbox-app update --check": true} // by TestCommandLine
	for _, run := range []struct {
		shape string
		args  []string
	}{
		{"version", nil}, {"bases", nil}, {"bases --check", nil}, {"discover", []string{"--timeout", "1s"}},
		{"status", nil}, {"status --history", nil}, {"timezone", nil}, {"timezone", []string{"Europe/Zurich"}},
		{"services list", nil}, {"services stop", []string{"mdns", "--yes"}}, {"services start", []string{"mdns"}},
		{"services restart", []string{"mdns"}},
		{"services disable", []string{"mdns", "--yes"}}, {"services enable", []string{"mdns"}}, {"logs", nil}, {"update --debian", nil},
		{"node show", nil}, {"node peers", nil}, {"node blocks", nil}, {"node fees", nil},
		{"node tx", []string{firstReward(t, finder)}},
		{"node settings", nil}, {"node settings --program", []string{"btcd", "--cache", "500", "--yes"}},
		{"node online", []string{"--yes"}}, {"node offline", []string{"--yes"}},
		{"disk list", nil}, {"disk use", []string{"sda", "--confirm", "use sda"}},
		{"node install", []string{signed.Write("31.0", "ann", "bob", "cyd"), "--yes"}}, {"node restart", nil},
		{"node resync", []string{"--confirm", nameOf(t, dir)}},
		{"name", nil}, {"name", []string{"Attic", "--yes"}}, {"apps list", nil},
		{"pairing open", nil}, {"pairing status", nil}, {"pairing close", nil},
		{"watch", []string{"--kept", "--past"}},
		{"bans list", nil}, {"bans lift", []string{"192.0.2.7", "--yes"}},
		{"audit", nil}, {"audit fix", []string{"ssh-settings", "--yes"}},
		{"posture show", nil}, {"expose", []string{"electrum", "--for", "1h", "--yes"}}, {"posture diff", nil}, {"posture history", nil},
		{"posture back", []string{"2", "--yes"}}, {"expose", []string{"electrum", "--for", "1h", "--yes"}}, {"wallet", nil},
		{"unexpose", []string{"electrum", "--yes"}},
		{"ssh keys add", []string{key, "--yes"}}, {"ssh keys list", nil}, {"ssh keys known-hosts", nil},
		{"ssh enable", []string{"--for", "1h", "--yes"}},
		{"posture show", nil}, {"ssh disable", []string{"--yes"}}, {"ssh keys remove", []string{"anna", "--yes"}},
		{"lockdown", []string{"--yes"}}, {"posture unlock", []string{"--yes"}},
		{"update", []string{file, "--yes"}}, {"update --status", nil}, {"log", nil}, {"log verify", nil},
		{"apps role", []string{"Phone", "viewer", "--yes"}}, {"apps rename", []string{"Phone", "Tablet"}},
		{"apps rename", []string{"Tablet", "Phone"}}, {"apps revoke", []string{"Phone", "--yes"}}, {"reboot", []string{"--yes"}},
		{"factory-reset", []string{"--confirm", nameOf(t, dir)}},
		{"provision", []string{"--to", t.TempDir(), "--name", "Cellar", "--pair"}}, {"forget", []string{"Cellar", "--yes"}},
	} {
		shape := "bitbox-app " + run.shape
		out := runJSON(t, dir, append(strings.Fields(run.shape), run.args...)...)
		ran[shape] = true
		allowed := keys(shapes[shape])
		for path := range allowed {
			if bare := strings.ReplaceAll(path, "?", ""); bare != path {
				allowed[bare] = ""
			}
		}
		if len(out) == 0 {
			t.Errorf("%s printed nothing", shape)
		}
		for line := range bytes.Lines(out) {
			var value any
			if err := json.Unmarshal(line, &value); err != nil {
				t.Errorf("%s: %v: %s", shape, err, line)
			}
			found := map[string]bool{}
			seen(found, "", value)
			for path := range found {
				if _, ok := allowed[path]; !ok {
					t.Errorf("%s prints %s, of which %s says nothing: %s", shape, path, jsonDocument, line)
				}
			}
		}
	}
	for name, shape := range shapes {
		// They are like posture back, reboot and node resync, and wallet check needs NGINX
		// (TestAWalletUsesTheBasesOwnNode in test/e2e).
		elsewhere := []string{"bitbox-app posture confirm", "bitbox-app shutdown", "bitbox-app node reindex",
			"bitbox-app wallet check"}
		if shape != nil && !ran[name] && !slices.Contains(elsewhere, name) {
			t.Errorf("%s is not run here", name)
		}
	}
}

// firstReward is the ID of the transaction of block 1.
func firstReward(t *testing.T, finder node.Finder) string {
	t.Helper()
	answer, err := finder.Headers(t.Context(), &basev1.ListHeadersRequest{First: 1, Count: 1})
	if err != nil || len(answer.GetHeaders()) != proof.HeaderSize {
		t.Fatalf("%v, %v", answer, err)
	}
	header := proof.Header(answer.GetHeaders())
	return header.Root().String() // of one transaction
}

func nameOf(t *testing.T, dir string) string { return postureIn(t, dir).Effective().NodeName }

// runJSON returns what a command prints with --json.
func runJSON(t *testing.T, dir string, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath("bitbox-app")
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(path, append(args, "--json")...)
	command.Env = []string{"HOME=" + dir, dirVariable + "=" + dir}
	var errs bytes.Buffer
	command.Stderr = &errs
	out, err := command.Output()
	if err != nil && command.ProcessState.ExitCode() != 15 { // an audit has findings
		t.Errorf("bitbox-app %s: %v: %s", strings.Join(args, " "), err, errs.String())
	}
	return out
}

// The attack: a Base puts commands for a terminal, or text that is hidden or runs backwards, into what it tells. JSON escapes
// the characters below U+0020 alone, and a person looks at the output in a terminal.
func TestJSONIsHarmlessInATerminal(t *testing.T) {
	const evil = "a\x1b[2J\u009b2J\u0085\x7f\u202ecod\u2028\u200b\U000e0041\ufffd ü😀"
	for _, value := range []any{map[string]string{"name": evil}, &basev1.LogEntry{Text: evil}} {
		text, err := marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		if strings.ContainsFunc(string(text), func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("it has a character that a terminal may obey: %+q", text)
		}
		var back map[string]any
		if err := json.Unmarshal(text, &back); err != nil || back["name"] != evil && back["text"] != evil {
			t.Errorf("%s is read as %+q (%v)", text, back, err)
		}
	}
}
