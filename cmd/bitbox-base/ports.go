package main

import (
	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/proxy"
)

func portsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ports",
		Short: "Reserve the ports of the entry and of extra APIs for NGINX",
		Long: `ports binds each TCP port that NGINX can come to listen on, and waits. It listens on
none of them. While it runs, no other user can have one: not while NGINX restarts, and not
before an owner has opened it. systemd starts it, as NGINX's user, before anybody can log in.`,
		Example: `  bitbox-base ports`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return proxy.Hold(c.Context(), generation.HeldPorts())
		},
	}
}
