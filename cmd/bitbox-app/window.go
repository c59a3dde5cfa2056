package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/pages"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

func (p *program) openCommand() *cobra.Command {
	var noBrowser bool
	var idle time.Duration
	var language string
	command := &cobra.Command{
		Use:   "window",
		Short: "Open the App in a browser: the same as the full screen, for people who would rather look",
		Long: `window serves a page on this computer, to its own user alone, and opens it in a browser. The
page shows all Bases, leads through a pairing, and changes what commands change. It is the
App itself that serves it; a Base has no page.

It prefers a Chromium with a profile of its own (no snap or flatpak), then the default
browser. If there is none, or with --no-browser, it prints an address and a code to type.

A second start opens the window that is open. The command ends a minute after the last page
is closed, when nothing is under way. It does not run as root.`,
		Example: `  bitbox-app window
  bitbox-app window --language de --idle 5m
  bitbox-app window --no-browser`,
		Args: commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			if c.Flags().Changed("idle") {
				if err := window.CheckIdle(idle); err != nil {
					return usageError{err}
				}
			}
			if tag := words.In(language).Tag; language != "" && tag != language {
				return usageError{fmt.Errorf("the window has no language %q; give en or de", client.Printable(language))}
			}
			return p.openWindow(c, window.Options{NoBrowser: noBrowser, Idle: idle, Language: language})
		},
	}
	flags := command.Flags()
	flags.BoolVar(&noBrowser, "no-browser", false, "start no browser; print the address and a code to type")
	commandline.DurationVar(flags, &idle, "idle", "lock a page after this long without key or pointer (default: as chosen in the window, or 15m)")
	flags.StringVar(&language, "language", "", "the language of the pages: en or de (default: as chosen in the window, or that of the system)")
	var tags []string
	for _, l := range words.Languages() {
		tags = append(tags, l.Tag)
	}
	_ = command.RegisterFlagCompletionFunc("language", cobra.FixedCompletions(tags, cobra.ShellCompDirectiveNoFileComp))
	_ = command.RegisterFlagCompletionFunc("idle", cobra.NoFileCompletions)
	return command
}

func (p *program) openWindow(c *cobra.Command, o window.Options) error {
	app, err := p.app(client.Options{})
	if err != nil {
		return err
	}
	known, err := p.releases()
	if err != nil {
		return err
	}
	o.Dir, o.Owner = known.Dir, p.owner(app, "", known)
	o.Pages = func(l words.Language, idle time.Duration) window.Renderer { return pages.New(l, idle) }
	o.SystemLanguage = systemLanguage(os.Getenv)
	o.Say = func(sentence string) { _ = p.printf("%s\n", p.out.Fold("", sentence)) }
	return window.Run(c.Context(), o)
}
