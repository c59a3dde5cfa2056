// Package manual generates the man pages and the shell completions of a command from its help.
// The shipped programs do not link it. Built with the tag "manual", a program links it and does
// only this (scripts/manual).
//
// The doc package of cobra could do it too, but it needs a Markdown renderer.
package manual

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/BitBoxSwiss/bitbox-base/internal/version"
)

// Main writes the manual of a command below the folder in the only argument. The pages are
// of the time in SOURCE_DATE_EPOCH (reproducible-builds.org), seconds since 1970.
func Main(root *cobra.Command) error {
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil || len(os.Args) != 2 {
		return fmt.Errorf("%s: write the manual: a folder is needed, and SOURCE_DATE_EPOCH", root.Name())
	}
	return Write(root, os.Args[1], version.Software, time.Unix(seconds, 0))
}

// Write writes the pages man/NAME.1 and the completions completions/{bash,zsh,fish}/ of a
// command below a folder. The date is that of the pages.
func Write(root *cobra.Command, folder, version string, date time.Time) error {
	name := root.Name()
	files := map[string]func(*bytes.Buffer) error{
		"completions/bash/" + name:           func(b *bytes.Buffer) error { return root.GenBashCompletionV2(b, true) },
		"completions/zsh/_" + name:           func(b *bytes.Buffer) error { return root.GenZshCompletion(b) },
		"completions/fish/" + name + ".fish": func(b *bytes.Buffer) error { return root.GenFishCompletion(b, true) },
	}
	for _, c := range commands(root) {
		files["man/"+title(c)+".1"] = func(b *bytes.Buffer) error { page(b, c, version, date); return nil }
	}
	for path, write := range files {
		var text bytes.Buffer
		if err := write(&text); err != nil {
			return fmt.Errorf("make %s: %w", path, err)
		}
		path = filepath.Join(folder, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("write the manual: %w", err)
		}
		if err := os.WriteFile(path, text.Bytes(), 0o644); err != nil {
			return fmt.Errorf("write the manual: %w", err)
		}
	}
	return nil
}

// Gaps lists what the help of a command does not say, of itself and of all below it.
func Gaps(root *cobra.Command) []string {
	var gaps []string
	for _, c := range commands(root) {
		if c.Short == "" {
			gaps = append(gaps, c.CommandPath()+" has no short description")
		}
		if c.Long == "" && c.Example == "" {
			gaps = append(gaps, c.CommandPath()+" has neither a description nor an example")
		}
		for line := range strings.Lines(c.Example) {
			if !strings.Contains(line, c.CommandPath()) && !strings.Contains(line, title(c)) && !c.HasSubCommands() {
				gaps = append(gaps, fmt.Sprintf("%s has an example of something else: %s", c.CommandPath(), strings.TrimSpace(line)))
			}
		}
		c.LocalFlags().VisitAll(func(flag *pflag.Flag) {
			if flag.Usage == "" {
				gaps = append(gaps, fmt.Sprintf("%s does not say what --%s is", c.CommandPath(), flag.Name))
			}
		})
	}
	return gaps
}

// commands returns a command and all below it that are shown to people.
func commands(root *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{root}
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() || c.IsAdditionalHelpTopicCommand() {
			all = append(all, commands(c)...)
		}
	}
	return all
}

func title(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// page writes one page, in the language of man(7).
func page(b *bytes.Buffer, c *cobra.Command, version string, date time.Time) {
	fmt.Fprintf(b, ".TH %s 1 %s %s\n", strings.ToUpper(escape(title(c))), date.UTC().Format(time.DateOnly), quote(c.Root().Name()+" "+version))
	fmt.Fprintf(b, ".SH NAME\n%s \\- %s\n", escape(title(c)), escape(c.Short))
	if c.Runnable() {
		fmt.Fprintf(b, ".SH SYNOPSIS\n.B %s\n", escape(c.UseLine()))
	}
	b.WriteString(".SH DESCRIPTION\n")
	prose(b, cmp.Or(c.Long, c.Short+"."))
	var below []*cobra.Command
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			below = append(below, sub)
		}
	}
	if len(below) > 0 {
		b.WriteString(".SH COMMANDS\n")
		for _, sub := range below {
			fmt.Fprintf(b, ".TP\n.BR %s (1)\n%s\n", escape(title(sub)), escape(sub.Short))
		}
	}
	c.InitDefaultHelpFlag()
	options(b, "OPTIONS", c.NonInheritedFlags())
	options(b, "OPTIONS OF ALL COMMANDS", c.InheritedFlags())
	if c.Example != "" {
		b.WriteString(".SH EXAMPLES\n")
		literal(b, strings.Split(c.Example, "\n"), true)
	}
	var others []string
	if c.HasParent() {
		others = append(others, title(c.Parent()))
	}
	for _, topic := range c.Commands() {
		if topic.IsAdditionalHelpTopicCommand() {
			others = append(others, title(topic))
		}
	}
	for n, other := range others {
		if n == 0 {
			b.WriteString(".SH SEE ALSO\n")
		}
		comma := ","
		if n == len(others)-1 {
			comma = ""
		}
		fmt.Fprintf(b, ".BR %s (1)%s\n", escape(other), comma)
	}
}

func options(b *bytes.Buffer, heading string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	fmt.Fprintf(b, ".SH %s\n", heading)
	flags.VisitAll(func(flag *pflag.Flag) {
		if flag.Hidden {
			return
		}
		name := "--" + flag.Name
		if flag.Shorthand != "" {
			name = "-" + flag.Shorthand + ", " + name
		}
		value, usage := pflag.UnquoteUsage(flag)
		fmt.Fprintf(b, ".TP\n.B %s", escape(name))
		if value != "" {
			fmt.Fprintf(b, " %s", escape(value))
		}
		fmt.Fprintf(b, "\n%s", escape(usage))
		// Zero values say nothing.
		if d := flag.DefValue; d != "" && d != "false" && d != "0" && d != "0s" && d != "[]" {
			fmt.Fprintf(b, " (by default %s)", escape(d))
		}
		b.WriteString("\n")
	})
}

// prose writes paragraphs; lines that are indented stand as they are.
func prose(b *bytes.Buffer, text string) {
	for n, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		lines := strings.Split(paragraph, "\n")
		if strings.HasPrefix(lines[0], " ") {
			literal(b, lines, n == 0)
			continue
		}
		if n > 0 {
			b.WriteString(".PP\n")
		}
		for _, line := range lines {
			b.WriteString(escape(line) + "\n")
		}
	}
}

// literal writes lines as they are, first right below a heading or not.
func literal(b *bytes.Buffer, lines []string, first bool) {
	if !first {
		b.WriteString(".PP\n")
	}
	b.WriteString(".nf\n")
	for _, line := range lines {
		b.WriteString(escape(line) + "\n")
	}
	b.WriteString(".fi\n")
}

// escape makes text that roff prints as it is. A line of it is no request.
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}

func quote(text string) string { return `"` + strings.ReplaceAll(escape(text), `"`, `\(dq`) + `"` }
