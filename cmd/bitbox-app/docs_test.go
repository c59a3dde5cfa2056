//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/nodeclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/appliancetest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/machinetest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/netnstest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
)

// A page of docs/app shows commands in blocks of "console", each after "$ ", with their output.
// The test runs them in the order of the page, with two Bases, Home and Cellar. The output must
// match, except for numbers, keys and times.
func TestPagesShowWhatCommandsPrint(t *testing.T) {
	pages, err := filepath.Glob("../../docs/app/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("%v, %v", pages, err)
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(text, []byte("\n```console\n")) {
			continue
		}
		t.Run(filepath.Base(page), func(t *testing.T) {
			t.Parallel()
			r := newReader(t)
			if filepath.Base(page) == "node.md" {
				r.startNode()
			}
			now := consoleBlock.ReplaceAllStringFunc(string(text), r.run)
			if *updateDocuments {
				if err := os.WriteFile(page, []byte(now), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

var consoleBlock = regexp.MustCompile("(?s)\n```console\n.*?\n```\n")

// reader types the commands of a page, in a directory of its own.
type reader struct {
	t          *testing.T
	dir        string
	appliances map[string]*appliancetest.Appliance
	txid       string // a transaction of Home's chain
}

func newReader(t *testing.T) *reader {
	t.Helper()
	netnstest.Require(t)
	r := &reader{t: t, dir: t.TempDir(), appliances: map[string]*appliancetest.Appliance{}}
	for _, name := range []string{"Home", "Cellar"} {
		a, err := appliancetest.Start(nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := a.Stop(); err != nil {
				t.Error(err)
			}
		})
		r.appliances[name] = a
		if err := pairNamed(a, r.dir, name); err != nil {
			t.Fatal(err)
		}
		if name == "Home" {
			listenForWallets(a.Machine, netip.MustParseAddrPort("192.168.1.20:41234"))
			a.Machine.Ban(bruteforce.Ban{Jail: "sshd", Addr: netip.MustParseAddr("192.168.1.66"), Since: time.Now(), Until: time.Now().Add(time.Hour)})
			a.Machine.Drift(&basev1.Finding{
				Id: "ssh-settings", Severity: basev1.Finding_SEVERITY_WARNING, Title: "A setting of SSH differs",
				Expected: "PasswordAuthentication no", Found: "PasswordAuthentication yes", Why: "Anybody who guesses a password gets in.",
				Fix: "The Base writes its own settings of SSH again.", Fixable: true,
			})
		}
	}
	release, err := machinetest.Release("1.1", machinetest.Architecture, 1<<20, false)
	if err != nil {
		t.Fatal(err)
	}
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8Yq0u3MG3Bz7Nv0YQmYzBLLp6Uj3EIPKGLgZ1nQk9L anna\n"
	for name, content := range map[string][]byte{"bitbox-base_1.1_amd64.release": release, ".ssh/id_ed25519.pub": []byte(key), "photo.jpg": []byte("this is a photo")} {
		path := filepath.Join(r.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, content, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// startNode gives Home a node with some blocks and a peer.
func (r *reader) startNode() {
	own, peer := nodetest.StartBtcd(r.t, "regtest"), nodetest.StartBtcd(r.t, "regtest")
	peer.Generate(12)
	own.Connect(peer)
	_, finder := own.ServeWallets()
	nodetest.ServeFinder(r.t, r.appliances["Home"].NodeSocket(), node.Config{Node: own.Node(), Interval: nodetest.Quick}, finder)
	nodetest.Eventually(r.t, "Home's node has the blocks of its peer", func() bool { return own.Height() == 12 })
	nodetest.Eventually(r.t, "their index is read", func() bool {
		answer, err := finder.Headers(r.t.Context(), &basev1.ListHeadersRequest{First: 12, Count: 1})
		return err == nil && len(answer.GetHeaders()) > 0
	})
	client := nodeclient.Dial(r.appliances["Home"].NodeSocket())
	nodetest.Eventually(r.t, "Home has seen them", func() bool {
		n, err := client.Node(r.t.Context())
		return err == nil && n.GetState() == basev1.Node_STATE_CURRENT && n.GetHeight() == 12 &&
			n.GetPeersIn() == 0 // the server for wallets, while it has fetched blocks
	})
	r.txid = firstReward(r.t, finder)
}

func pairNamed(a *appliancetest.Appliance, dir, as string) error {
	ctx, cancel := context.WithTimeout(context.Background(), scriptTime)
	defer cancel()
	app, err := client.New(client.Options{Dir: dir, Name: "Laptop", NoDiscovery: true})
	if err != nil {
		return err
	}
	let := make(chan error, 1)
	_, err = app.Pair(ctx, []string{a.Address()}, client.PairOptions{
		Name:      as,
		Requested: func(number string) { go func() { let <- a.Let(ctx, number, basev1.Role_ROLE_OWNER) }() },
		Confirm:   func(context.Context, client.Code) (bool, error) { return true, nil },
	})
	return errors.Join(err, <-let)
}

// run types the commands of a block, compares the output, and returns the block with the present
// output.
func (r *reader) run(block string) string {
	var now strings.Builder
	now.WriteString("\n```console\n")
	body := strings.TrimSuffix(strings.TrimPrefix(block, "\n```console\n"), "```\n")
	for _, part := range strings.Split("\n"+body, "\n$ ")[1:] {
		typed, shown, _ := strings.Cut(part, "\n")
		printed := r.types(typed)
		if looks(printed) != looks(shown) && !*updateDocuments {
			r.t.Errorf("%s\nprints\n%s\nand the page shows (-update rewrites it)\n%s", typed, printed, shown)
		}
		now.WriteString("$ " + typed + "\n" + printed)
	}
	return now.String() + "```\n"
}

func (r *reader) types(typed string) string {
	command := exec.Command("/bin/sh", "-c", typed)
	command.Dir = r.dir
	command.Env = []string{"HOME=" + r.dir, dirVariable + "=" + r.dir, "PATH=" + os.Getenv("PATH"), "TZ=UTC", "TXID=" + r.txid}
	out, err := command.CombinedOutput()
	if failed := new(exec.ExitError); err != nil && !errors.As(err, &failed) {
		r.t.Fatalf("%s: %v", typed, err)
	}
	// Both names are equally wide, because they appear in tables.
	named := localAddress.ReplaceAllStringFunc(string(out), func(address string) string {
		if strings.HasSuffix(address, ":50002") {
			return address
		}
		return "10.0.0.120:8845"
	})
	return strings.ReplaceAll(named, "127.0.0.1", "10.0.0.120")
}

var localAddress = regexp.MustCompile(`127\.0\.0\.1:\d{5}`)

// varying matches text that differs from day to day and from machine to machine.
var varying = []struct {
	pattern *regexp.Regexp
	as      string
}{
	// The progress of a change or an update depends on the moment.
	{regexp.MustCompile(`(?m)^  \.\.\. .*\n`), ""},
	{regexp.MustCompile(`(?m)^(Sending|staged|installing|checking|undoing|done|The Base is restarting).*\n`), ""},
	{regexp.MustCompile(`SHA256:[A-Za-z0-9+/]{43}|([0-9A-F]{2}:){31}[0-9A-F]{2}`), "FINGERPRINT"},
	{regexp.MustCompile(`\b[0-9a-f]{16,}\b`), "KEY"},
	{regexp.MustCompile(`\d+ (d|h|min|s)\b( \d+ (h|min|s)\b)?`), "TIME"},
	{regexp.MustCompile(`(\d{4}-\d{2}-\d{2} )?\b\d{2}:\d{2}\b`), "CLOCK"},
	{regexp.MustCompile(`[0-9.]+ ([KMGT]i)?B\b`), "SIZE"},
	{regexp.MustCompile(`\d+`), "0"},
	{regexp.MustCompile(` +`), " "},
}

func looks(text string) string {
	for _, v := range varying {
		text = v.pattern.ReplaceAllString(text, v.as)
	}
	return strings.TrimSpace(text)
}
