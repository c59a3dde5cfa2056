package host

import (
	"context"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/factoryreset"
)

// ResetFailed tells whether this boot could not finish a factory reset.
func (m Host) ResetFailed(ctx context.Context) bool {
	return m.state(ctx, factoryreset.Unit) == "failed"
}

// Restart asks systemd to restart the machine, in an orderly way.
func (m Host) Restart(ctx context.Context) error {
	return m.do(ctx, systemctl, "--no-block", "--job-mode=replace-irreversibly", "start", "reboot.target")
}
