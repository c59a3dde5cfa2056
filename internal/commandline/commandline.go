// Package commandline has the parts that the command lines of both programs share: the number
// of arguments of a command, and the syntax of durations.
package commandline

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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

// maxDays keeps typed values within the range of a [time.Duration].
const maxDays = 36500

// ParseDuration reads a length of time: numbers with the units s, m (minutes), h and d,
// the largest first, such as 90s, 30m, 1h30m or 2d. It is not negative.
func ParseDuration(text string) (time.Duration, error) {
	wrong := fmt.Errorf("%q is not a length of time; write it like 90s, 30m (minutes), 12h or 7d", text)
	var days time.Duration
	rest := text
	if number, after, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || n > maxDays {
			return 0, wrong
		}
		if days, rest = time.Duration(n)*24*time.Hour, after; rest == "" {
			return days, nil
		}
	}
	length, err := time.ParseDuration(rest)
	if err != nil || length < 0 || length > maxDays*24*time.Hour || strings.ContainsAny(rest, "nuµμ+-") || strings.Contains(rest, "ms") {
		return 0, wrong
	}
	return days + length, nil
}

// FormatDuration writes a length of time, in whole seconds, in the form that [ParseDuration]
// reads.
func FormatDuration(length time.Duration) string {
	text := ""
	for _, unit := range []struct {
		name   string
		length time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}} {
		if n := length / unit.length; n > 0 {
			text += fmt.Sprintf("%d%s", n, unit.name)
			length -= n * unit.length
		}
	}
	return cmp.Or(text, "0s")
}

// DurationVar adds a flag that takes a length of time above 0 (see [ParseDuration]).
func DurationVar(flags *pflag.FlagSet, to *time.Duration, name, usage string) {
	flags.Var((*durationValue)(to), name, usage)
}

type durationValue time.Duration

func (d *durationValue) Set(text string) error {
	length, err := ParseDuration(text)
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
	return FormatDuration(time.Duration(*d))
}

func (d *durationValue) Type() string { return "time" }
