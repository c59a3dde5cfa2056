package commandline_test

import (
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

func TestADurationFlagRefusesZero(t *testing.T) {
	var length time.Duration
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	commandline.DurationVar(flags, &length, "for", "")
	for _, text := range []string{"0s", "0", "-1s", "soon"} {
		if err := flags.Parse([]string{"--for", text}); err == nil {
			t.Errorf("--for %s was accepted", text)
		}
	}
	if err := flags.Parse([]string{"--for", "1d"}); err != nil || length != 24*time.Hour {
		t.Errorf("--for 1d: %v, %v", length, err)
	}
}

func TestAMistypedCommandGetsOneSentence(t *testing.T) {
	run := func(*cobra.Command, []string) {}
	root := &cobra.Command{Use: "app", Args: commandline.Args(0, 0), Run: run, SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(
		&cobra.Command{Use: "status", Args: commandline.Args(0, 0), Run: run},
		&cobra.Command{Use: "rename APP NEW-NAME", Args: commandline.Args(2, 2), Run: run},
		&cobra.Command{Use: "logs [SERVICE...]", Args: commandline.Any(0), Run: run},
	)
	for typed, want := range map[string]string{
		"statsu":           `'app' has no command "statsu"; did you mean status?`,
		"other":            `'app' has no command "other"`,
		"rename Phone":     `'app rename' needs APP NEW-NAME`,
		"rename a b c":     `'app rename' got one argument too many, "c"; put quotes around a name with spaces`,
		"status now":       `'app status' takes no argument, but got "now"`,
		"logs nginx b c d": "",
	} {
		root.SetArgs(strings.Fields(typed))
		got := ""
		if err := root.Execute(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", typed, got, want)
		}
	}
}
