// Package commandline has the parts that the command lines of both programs share: the number
// of arguments of a command, and flags that take a length of time.
package commandline

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/BitBoxSwiss/bitbox-base/internal/timespan"
)

// Args checks the number of arguments of a command, with a sentence for too few and too many. It
// takes their names from the command's Use. A command with subcommands takes none itself: any
// other word is a mistyped subcommand.
func Args(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		_, names, _ := strings.Cut(c.Use, " ")
		switch {
		case len(args) < least:
			return fmt.Errorf("'%s' needs %s", c.CommandPath(), names)
		case len(args) <= most:
			return nil
		case most == 0 && c.HasAvailableSubCommands():
			return unknown(c, args[0])
		case most == 0:
			return fmt.Errorf("'%s' takes no argument, but got %q", c.CommandPath(), args[0])
		}
		return fmt.Errorf("'%s' got one argument too many, %q; put quotes around a name with spaces", c.CommandPath(), args[most])
	}
}

// Any takes at least this many arguments.
func Any(least int) cobra.PositionalArgs {
	const unbounded = 1 << 20
	return Args(least, unbounded)
}

// unknown names the subcommands whose spelling is close to the typed word.
func unknown(c *cobra.Command, typed string) error {
	const twoLetters = 2
	c.SuggestionsMinimumDistance = twoLetters
	text := fmt.Sprintf("'%s' has no command %q", c.CommandPath(), typed)
	if near := c.SuggestionsFor(typed); len(near) > 0 {
		text += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return errors.New(text)
}

// DurationVar adds a flag that takes a length of time above 0 (see [timespan.Parse]).
func DurationVar(flags *pflag.FlagSet, to *time.Duration, name, usage string) {
	flags.Var((*durationValue)(to), name, usage)
}

type durationValue time.Duration

func (d *durationValue) Set(text string) error {
	length, err := timespan.Parse(text)
	if err == nil && length == 0 {
		err = errors.New("it must be longer than 0")
	}
	if err == nil {
		*d = durationValue(length)
	}
	return err
}

func (d *durationValue) String() string {
	if *d == 0 {
		return ""
	}
	return timespan.Format(time.Duration(*d))
}

func (d *durationValue) Type() string { return "time" }
