package main

import (
	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

func (p *program) prePairCommand() *cobra.Command {
	var name, appName string
	command := &cobra.Command{
		Use:   "prepair FILE",
		Short: "Make the keys of an image that is pre-paired with this App",
		Long: `prepair is for a Base without a display, where nobody could compare a code: its image gets
keys that this App knows. prepair writes the image's half of the keys to FILE, for
'bitbox-base provision --prepaired' or 'make image PAIR=1', and stores the App's half.

FILE and the image hold private keys, and are for one board. The first board that the App
meets becomes the Base; any other board with the same image is refused. Until then, anybody
with a copy of FILE or of the image could pose as that board. Keep both secret, delete FILE
once the image is made, and use a network that you trust for the first contact.`,
		Example: `  bitbox-app prepair cellar.keys --name Cellar`,
		Args:    commandline.Args(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			app, err := p.app(client.Options{Name: appName})
			if err != nil {
				return err
			}
			base, err := app.PrePair(args[0], name)
			if err != nil {
				return err
			}
			if p.json {
				return p.printJSON(basisOf(base))
			}
			return p.printf("The keys of %q are in %s. They are private, and for one board: delete the file once the image is made.\n"+
				"After the board has booted: bitbox-app --base %q status\n", base.Name, client.Printable(args[0]), base.Name)
		},
	}
	command.Flags().StringVar(&name, "name", "BitBox Base", "name of the Base")
	command.Flags().StringVar(&appName, "app-name", "", "what to call this App at the Base (default: the name of this machine)")
	_ = command.RegisterFlagCompletionFunc("name", cobra.NoFileCompletions)
	_ = command.RegisterFlagCompletionFunc("app-name", cobra.NoFileCompletions)
	return command
}
