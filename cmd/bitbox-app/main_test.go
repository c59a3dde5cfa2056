//go:build linux

package main

import (
	"crypto/ed25519"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/machinetest"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/netnstest"
)

// inNamespace runs the tests in their own network, because the Bases of the scripts announce
// themselves.
type inNamespace struct{ m *testing.M }

func (i inNamespace) Run() int { return netnstest.Run(leaktest.Checked(i.m)) }

// programs are those that this test binary is, by the name under which it is started.
var programs = map[string]func(){"bitbox-app": func() {
	releaseKey = func() (ed25519.PublicKey, error) { return machinetest.ReleaseKey(), nil }
	main()
}}

func TestMain(m *testing.M) {
	testscript.Main(inNamespace{m}, programs)
}

// isRoot tells whether this process is root of the machine, not only of the namespace that its
// tests run in.
func isRoot() bool {
	users, err := os.ReadFile("/proc/self/uid_map") // inside, outside, how many
	outside := strings.Fields(string(users))
	return err == nil && len(outside) > 1 && outside[1] == "0" && os.Geteuid() == 0
}

// The scripts show what a person types and reads, with a real Base.
func TestCommandLine(t *testing.T) {
	netnstest.Require(t)
	socket := serveNode(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("TZ", "UTC")
			env.Setenv("TAB", "a\tb")
			env.Setenv("LONG", strings.Repeat("x", 64))
			env.Setenv(dirVariable, env.WorkDir+"/app")
			env.Values[stageKey{}] = newStage(env, socket)
			return nil
		},
		Condition: func(condition string) (bool, error) { return condition == "root" && isRoot(), nil },
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"base":     baseCommand,
			"pair":     pairScript,
			"code":     codeCommand,
			"await":    awaitCommand,
			"server":   serverCommand,
			"fulldisk": fullDiskCommand,

			"appliance": applianceCommand,
			"letin":     letInCommand,
			"release":   releaseCommand,
			"feed":      feedCommand,
		},
	})
}
