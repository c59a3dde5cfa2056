package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/devbase"
)

func (p *program) devCommand() *cobra.Command {
	var (
		config     devbase.Config
		noMDNS     bool
		noTerminal bool
		verbose    bool
		interfaces []string
	)
	command := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole Base on this machine",
		Long: `dev runs a whole Base in one process: without root, and without touching anything
outside its state directory. It listens on a TCP port and announces itself by mDNS.

Its terminal is the display: it shows pairing codes and asks for answers. Without a
terminal, the log on standard error shows the codes; answer with 'bitbox-base pairing'
and the same --state.`,
		Example: `  bitbox-base dev
  bitbox-base dev --state /tmp/base --listen 127.0.0.1:0 --no-mdns`,
		Args: commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			config.StateDir = p.stateDir
			config.Announce = !noMDNS
			var err error
			if config.Interfaces, err = chosen(interfaces); err != nil {
				return err
			}
			level := slog.LevelInfo
			if !noTerminal && isTerminal(os.Stdin) && isTerminal(os.Stdout) {
				config.In, config.Out = os.Stdin, os.Stdout
				if isTerminal(os.Stderr) && !verbose {
					level = slog.LevelWarn // other messages would disturb the dialogue
				}
			}
			config.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
			config.Ready = func(b *devbase.Base) {
				if config.Out != nil {
					fmt.Fprintf(config.Out, "%s listens on %s. Its state is in %s. Ctrl-C ends it.\n", b.Name(), b.Addr(), config.StateDir)
				}
			}
			return devbase.RunDev(c.Context(), config)
		},
	}
	flags := command.Flags()
	flags.StringVar(&config.Listen, "listen", devbase.DefaultListen, "TCP address to listen on; port 0 chooses a free one")
	flags.StringVar(&config.Name, "name", "", "name of a new Base (default \"bitbox-base-\" and four digits)")
	flags.StringVar(&config.Node, "node", "", "socket of a running 'bitbox-node dev'; without it this Base has no node")
	flags.BoolVar(&noMDNS, "no-mdns", false, "do not announce the Base on the local network")
	flags.StringSliceVar(&interfaces, "interface", nil, "announce on this network interface only; may be repeated")
	flags.BoolVar(&noTerminal, "no-terminal", false, "show pairings in the log even if there is a terminal")
	flags.BoolVarP(&verbose, "verbose", "v", false, "log everything, even into the terminal's dialogue")
	_ = command.RegisterFlagCompletionFunc("interface", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return interfaceNames(), cobra.ShellCompDirectiveNoFileComp
	})
	return command
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

func interfaceNames() []string {
	all, err := net.Interfaces()
	if err != nil {
		return nil
	}
	names := make([]string, 0, len(all))
	for _, i := range all {
		names = append(names, i.Name)
	}
	return names
}

// chosen returns the chosen interfaces; nil: all.
func chosen(names []string) (func(net.Interface) bool, error) {
	if len(names) == 0 {
		return nil, nil
	}
	for _, name := range names {
		if !slices.Contains(interfaceNames(), name) {
			return nil, usageError{fmt.Errorf("there is no network interface %q; 'ip link' lists them", name)}
		}
	}
	return func(i net.Interface) bool { return slices.Contains(names, i.Name) }, nil
}
