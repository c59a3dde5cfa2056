// Command bitbox-app is the owner's program: it finds Bases, pairs with them, and manages
// them. It uses package client only, so any other program can do the same.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/terminal"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

// dirVariable overrides where the App keeps its files; the flag --dir overrides
// both.
const dirVariable = "BITBOX_APP_DIR"

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	p := &program{in: os.Stdin, out: terminal.Open(os.Stdout, os.Getenv), errs: terminal.Open(os.Stderr, os.Getenv),
		terminal: term.IsTerminal(int(os.Stdin.Fd())), warned: &sync.Once{}}
	cobra.MousetrapHelpText = "" // or cobra refuses a click in the Windows Explorer
	root := p.rootCommand()
	root.SetArgs(desktopArgs(args))
	err := root.ExecuteContext(ctx)
	p.out.Wait("")
	if err == nil {
		return 0
	}
	if !p.running {
		err = usageError{err}
	}
	p.complain(p.sentence(ctx, err))
	return exitCode(ctx, err)
}

// complain prints a sentence about a problem, broken between words.
func (p *program) complain(sentence string) {
	fmt.Fprintln(p.errs, p.errs.Fold("  ", "bitbox-app: "+sentence))
}

// program is one run of the command.
type program struct {
	in       io.Reader
	out      *terminal.Output
	errs     *terminal.Output
	terminal bool        // a person is at in
	running  bool        // the command line was understood
	left     string      // what an interruption leaves behind at the Base
	warned   *sync.Once  // of what could not be stored
	unstored func(error) // is told of that instead, where there is a screen

	// Flags.
	dir     string
	bases   []string
	all     bool
	address string
	timeout time.Duration
	json    bool
}

func (p *program) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "bitbox-app",
		Short: "Find, pair with and manage your Bases",
		Long: `bitbox-app finds Bases on the local network, pairs with a Base by a code that you compare
with your own eyes, and manages it over an encrypted channel. Run without a command in a
terminal, it opens the full screen (bitbox-app dashboard).

Its data is kept in one directory: --dir, else $` + dirVariable + `, else bitbox-app in
your configuration directory.`,
		Example: `  bitbox-app discover
  bitbox-app pair
  bitbox-app status`,
		Args:              commandline.Args(0, 0),
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			p.running = true
			if p.address != "" {
				if err := client.CheckAddress(p.address); err != nil {
					return err
				}
			}
			return p.checkSeveral(c)
		},
		RunE: func(c *cobra.Command, _ []string) error {
			if p.showsDashboard() {
				return p.dashboard(c.Context())
			}
			return c.Help()
		},
	}
	p.fitHelp(root)
	root.SetIn(p.in)
	root.SetOut(p.out)
	flags := root.PersistentFlags()
	flags.StringVar(&p.dir, "dir", os.Getenv(dirVariable), "directory of the App's data")
	flags.StringArrayVar(&p.bases, "base", nil,
		"the `NAME` of the Base, if this App is paired with several; separate several names by commas, or repeat the flag")
	flags.BoolVar(&p.all, "all", false, "run on all Bases that this App is paired with (read-only commands and lockdown)")
	flags.StringVar(&p.address, "address", "", "the address of the Base (host:port), if it has moved and is not found; only this one is tried")
	commandline.DurationVar(flags, &p.timeout, "timeout", "wait at most this long, such as 10s (default: depends on the command)")
	flags.BoolVar(&p.json, "json", false, "print JSON")
	_ = root.MarkPersistentFlagDirname("dir")
	_ = root.RegisterFlagCompletionFunc("base", p.completeBases)
	_ = root.RegisterFlagCompletionFunc("address", cobra.NoFileCompletions)
	_ = root.RegisterFlagCompletionFunc("timeout", cobra.NoFileCompletions)
	root.AddCommand(
		p.dashboardCommand(), p.openCommand(), p.discoverCommand(), p.pairCommand(), p.provisionCommand(), p.basesCommand(), p.forgetCommand(),
		p.statusCommand(), p.nodeCommand(), p.diskCommand(), p.walletCommand(), p.appsCommand(), p.pairingCommand(), p.watchCommand(),
		p.postureCommand(), p.exposeCommand(), p.unexposeCommand(), p.sshCommand(), p.bansCommand(), p.auditCommand(), p.logCommand(),
		p.lockdownCommand(), p.updateCommand(), p.factoryResetCommand(),
		p.servicesCommand(), p.logsCommand(), p.nameCommand(), p.timezoneCommand(), p.rebootCommand(), p.shutdownCommand(),
		p.versionCommand(), exitCodesTopic(),
	)
	return root
}

// helpWidth is how many columns help uses at most.
const helpWidth = 92

// fitHelp breaks help between words where the terminal is narrower.
func (p *program) fitHelp(root *cobra.Command) {
	width := func() int {
		if w := p.out.Width(); w > 0 {
			return min(w, helpWidth)
		}
		return helpWidth
	}
	cobra.AddTemplateFunc("flagUsages", func(flags *pflag.FlagSet) string { return flags.FlagUsagesWrapped(width()) })
	root.SetUsageTemplate(regexp.MustCompile(`\.(Local|Inherited)Flags\.FlagUsages`).ReplaceAllString(root.UsageTemplate(), "flagUsages .${1}Flags"))
	help := root.HelpFunc()
	root.SetHelpFunc(func(c *cobra.Command, args []string) {
		long := c.Long
		defer func() { c.Long = long }()
		paragraphs := strings.Split(long, "\n\n")
		for n, text := range paragraphs {
			if width() < helpWidth && !strings.Contains("\n"+text, "\n ") {
				paragraphs[n] = p.out.Fold("", text)
			}
		}
		c.Long = strings.Join(paragraphs, "\n\n")
		help(c, args)
	})
}

// app opens nothing yet.
func (p *program) app(options client.Options) (*client.App, error) {
	options.Dir = p.dir
	options.Unstored = p.notStored
	return client.New(options)
}

// notStored takes what client.Options.Unstored is called with, and says it once in a run.
func (p *program) notStored(err error) {
	switch {
	case p.unstored != nil:
		p.unstored(err)
	case err != nil && p.warned != nil:
		p.warned.Do(func() { p.complain(client.Explain(err)) })
	}
}

// callTime is how long a call may take: trying a dead address, searching for another one, and the
// handshake.
const callTime = 20 * time.Second

// limited bounds a command by --timeout, or else by its own limit; 0 means no limit.
func (p *program) limited(ctx context.Context, usual time.Duration) (context.Context, context.CancelFunc) {
	if p.timeout > 0 {
		usual = p.timeout
	}
	if usual == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, usual)
}

// call runs one conversation with the chosen Base.
func (p *program) call(ctx context.Context, usual time.Duration, conversation func(context.Context, *client.Session) error) error {
	app, err := p.app(client.Options{})
	if err != nil {
		return err
	}
	names, err := p.chosenBases(app)
	if err != nil {
		return err
	}
	name := "" // the only one
	if len(names) > 0 {
		name = names[0]
	}
	return p.talk(ctx, app, name, usual, func(ctx context.Context, session *client.Session) error {
		p.waiting("Waiting for %s", session.Base())
		return conversation(ctx, session)
	})
}

// talk runs one conversation with one Base.
func (p *program) talk(ctx context.Context, app *client.App, name string, usual time.Duration,
	conversation func(context.Context, *client.Session) error) error {
	var at []string
	if p.address != "" {
		at = append(at, p.address)
	}
	session, err := app.Open(name, at...)
	if err != nil {
		return err
	}
	defer session.Close()
	ctx, cancel := p.limited(ctx, usual)
	defer cancel()
	return conversation(ctx, session)
}

// waiting tells the user what the command waits for, until something is printed.
func (p *program) waiting(format string, args ...any) {
	if !p.json {
		p.out.Wait(client.Printable(fmt.Sprintf(format, args...)))
	}
}

// step reports progress: at a terminal in one line that the next step replaces; in a pipe in
// lines that begin with prefix.
func (p *program) step(prefix, text string) error {
	if p.out.Moves {
		p.waiting("%s", text)
		return nil
	}
	return p.say("%s%s\n", prefix, client.Printable(text))
}

// printJSON prints a message of the API or any other value on one line.
func (p *program) printJSON(value any) error {
	text, err := marshal(value)
	if err != nil {
		return err
	}
	return p.printf("%s\n", text)
}

func (p *program) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(p.out, format, args...)
	return err
}

// completeTime is how long the shell waits for completions.
const completeTime = 2 * time.Second

func (p *program) completeBases(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	app, err := p.app(client.Options{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	bases, err := app.Bases()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, b := range bases {
		names = append(names, client.Printable(b.Name))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
