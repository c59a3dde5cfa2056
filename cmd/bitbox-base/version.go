package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/version"
)

func (p *program) versionCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "version",
		Short:   "Show the versions of the software and the protocol",
		Example: `  bitbox-base version --json`,
		Args:    commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			out := c.OutOrStdout()
			if p.json {
				return json.NewEncoder(out).Encode(map[string]any{
					"software": version.Software, "protocol": noiseconn.ProtocolVersion, "go": version.Toolchain(),
				})
			}
			_, err := fmt.Fprintf(out, "bitbox-base %s (protocol %d, %s)\n", version.Software, noiseconn.ProtocolVersion, version.Toolchain())
			return err
		},
	}
	command.Flags().BoolVar(&p.json, "json", false, "print JSON")
	return command
}
