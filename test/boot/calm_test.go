//go:build linux

package boot_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// answerTime is how long the Base gives itself for the calls below (quick, in the table of methods);
// an App waits no longer, with and without a fault.
const answerTime = 30 * time.Second

// calm is what no fault of the node may touch.
type calm struct {
	m *manager
	// program and dir are the App's, as its owner has them.
	program, dir string
	memory       posture.Memory
	effective    posture.Effective
	inForce      string
}

// newCalm remembers how a Base is, and makes the calls of untouched once without a fault. program is
// the App, dir is its folder.
func newCalm(m *manager, program, dir string) *calm {
	m.t.Helper()
	c := &calm{m: m, program: program, dir: dir}
	view := c.posture()
	c.memory, c.effective, c.inForce = view.Memory(), view.Effective(), c.live()
	c.untouched("nothing")
	return c
}

// posture is what the Base has signed just now: the App verifies report, chain and a fresh number.
func (c *calm) posture() (view *client.PostureView) {
	c.m.t.Helper()
	ctx, cancel := context.WithTimeout(c.m.t.Context(), answerTime)
	defer cancel()
	view, err := c.m.session.Posture(ctx)
	if err != nil {
		c.m.t.Fatal(client.Explain(err))
	}
	return view
}

// live is the generation in force, and the packet filter without its counters.
func (c *calm) live() string {
	c.m.t.Helper()
	text := c.m.MustExec("readlink", generation.Current(""))
	for _, program := range []string{"iptables-save", "ip6tables-save"} {
		for line := range strings.Lines(c.m.MustExec(program, "-t", "filter")) {
			if strings.HasPrefix(line, "-A ") {
				text += line
			}
		}
	}
	return text
}

// untouched makes the calls of an App while there is a fault, over the connection that it has and
// over a new one from outside.
func (c *calm) untouched(fault string) {
	c.m.t.Helper()
	for range 3 {
		view := c.posture()
		// The revisions, and the hashes of the signed bytes.
		if now := view.Memory(); now != c.memory {
			c.m.t.Errorf("%s: the posture that is signed was %+v, and is %+v", fault, c.memory, now)
		}
		if now := view.Effective(); !reflect.DeepEqual(now, c.effective) {
			c.m.t.Errorf("%s: in force was %+v, and is %+v", fault, c.effective, now)
		}
		for name, call := range map[string]func(context.Context, *client.Session) error{
			"GetInfo": func(ctx context.Context, s *client.Session) error {
				_, err := s.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
				return err
			},
			"GetNode": func(ctx context.Context, s *client.Session) error {
				_, err := s.Node.GetNode(ctx, &basev1.GetNodeRequest{})
				return err
			},
			"ListServices": func(ctx context.Context, s *client.Session) error {
				_, err := s.Services.ListServices(ctx, &basev1.ListServicesRequest{})
				return err
			},
		} {
			ctx, cancel := context.WithTimeout(c.m.t.Context(), answerTime)
			if err := call(ctx, c.m.session); err != nil {
				c.m.t.Errorf("%s: %s is answered with %s", fault, name, client.Explain(err))
			}
			cancel()
		}
	}
	fresh, err := c.m.app.Open("")
	if err == nil {
		ctx, cancel := context.WithTimeout(c.m.t.Context(), answerTime)
		_, err = fresh.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
		cancel()
		fresh.Close()
	}
	if err != nil {
		c.m.t.Errorf("%s: a new connection: %s", fault, client.Explain(err))
	}
	if conn, err := c.m.Attacker(2).Dial("tcp", netip.AddrPortFrom(c.m.V4, posture.EntryPort)); err != nil {
		c.m.t.Errorf("%s: the entry is shut: %v", fault, err)
	} else {
		_ = conn.Close()
	}
	if d := cmp.Diff(c.inForce, c.live()); d != "" {
		c.m.t.Errorf("%s: the machine has changed:\n%s", fault, d)
	}
}

// reads returns what the App prints, and fails the test if a part is missing.
func (c *calm) reads(parts []string, arguments ...string) {
	c.m.t.Helper()
	ctx, cancel := context.WithTimeout(c.m.t.Context(), callTime)
	defer cancel()
	command := exec.CommandContext(ctx, c.program, arguments...)
	command.Env = append(os.Environ(), "BITBOX_APP_DIR="+c.dir)
	out, err := command.CombinedOutput()
	if err != nil {
		c.m.t.Errorf("%v: %v: %s", arguments, err, out)
	}
	for _, part := range parts {
		if !strings.Contains(string(out), part) {
			c.m.t.Errorf("the owner does not read %q, but\n%s", part, out)
		}
	}
}

// during waits until the App tells of a fault, and looks at all that must go on meanwhile. The owner
// reads each of says.
func (c *calm) during(fault string, seen func(*basev1.Node) bool, says ...string) {
	c.m.t.Helper()
	c.until(fault, seen)
	c.untouched(fault)
	c.until(fault, seen) // it has lasted
	c.reads(says, "node")
}

func (c *calm) until(what string, seen func(*basev1.Node) bool) {
	c.m.t.Helper()
	c.m.Until(what+": the App tells", func() error {
		var n *basev1.Node
		if err := c.m.call(func(ctx context.Context, s *client.Session) error {
			answer, err := s.Node.GetNode(ctx, &basev1.GetNodeRequest{})
			n = answer.GetNode()
			return err
		}); err != nil {
			return err
		}
		if !seen(n) {
			return fmt.Errorf("it is %v\n%s", n, c.m.Journal(generation.ChainUnit, generation.WatcherUnit))
		}
		return nil
	})
}

// appProgram builds the owner's program.
func appProgram(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bitbox-app")
	goBuild(t, file, "../../cmd/bitbox-app")
	return file
}

func goBuild(t *testing.T, file, source string) {
	t.Helper()
	build := exec.Command("go", "build", "-o", file, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", source, err, out)
	}
}
