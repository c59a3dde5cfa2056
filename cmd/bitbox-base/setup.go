package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/internal/setup"
)

func (p *program) setupCommand() *cobra.Command {
	var (
		options setup.Options
		root    string
		yes     bool
	)
	command := &cobra.Command{
		Use:   "setup",
		Short: "Make this machine a Base",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if root == "" {
				return fmt.Errorf("setup of a running machine comes with a next version; --root DIR sets up an image")
			}
			plan, err := setup.Plan(root, options, nil)
			if err != nil {
				return err
			}
			return plan.Apply(root)
		},
	}
	command.Flags().BoolVar(&yes, "yes", false, "do not ask")
	command.Flags().StringVar(&root, "root", "", "set up the system in this folder, an image, and start nothing")
	command.Flags().BoolVar(&options.NoUSBInput, "no-usb-input", false, "switch keyboards and mice at USB off")
	return command
}
