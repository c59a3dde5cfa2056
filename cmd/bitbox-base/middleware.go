package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/daemon"
	"github.com/BitBoxSwiss/bitbox-base/internal/nodeclient"
)

// middlewareState is where systemd keeps the Middleware's state (StateDirectory= of its unit).
const middlewareState = "/var/lib/bitbox-base/middleware"

func (p *program) middlewareCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "middleware",
		Short: "Run the Middleware, which talks to Apps",
		Long: `middleware runs the daemon that speaks to Apps: it takes connections from NGINX and asks
the system helper for what it may not decide. systemd starts it on the appliance and
hands it its socket.`,
		Example: `  bitbox-base middleware`,
		Args:    commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			passed, err := activation.Listeners()
			if err != nil {
				return fmt.Errorf("take systemd's socket: %w", err)
			}
			if len(passed) != 1 || passed[0] == nil {
				return errors.New("systemd starts the Middleware, with one socket (bitbox-base-middleware.socket); on a developer's machine use: bitbox-base dev")
			}
			return daemon.Run(c.Context(), daemon.ApplianceConfig{
				StateDir: middlewareState,
				Entry:    passed[0],
				Helper:   helperclient.Client{Port: helperclient.Dial(generation.SystemSocket)},
				Node:     nodeclient.Dial(nodeclient.DefaultSocket),
				Logger:   slog.New(slog.NewTextHandler(os.Stderr, nil)),
			})
		},
	}
}
