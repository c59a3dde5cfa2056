package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
	"github.com/BitBoxSwiss/bitbox-base/packaging/manual"
)

func TestMain(m *testing.M) {
	testscript.Main(leaktest.Checked(m), map[string]func(){"bitbox-base": main})
}

// The scripts show what a person types and reads.
func TestCommandLine(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("XDG_STATE_HOME", env.WorkDir+"/s")
			env.Setenv("HOME", env.WorkDir)
			return os.Chmod(env.WorkDir, 0o700)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"await": await,
			"code":  code,
		},
	})
}

func TestEachCommandAndFlagIsExplained(t *testing.T) {
	for _, gap := range manual.Gaps((&program{}).rootCommand()) {
		t.Error(gap)
	}
}
