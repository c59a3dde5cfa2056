package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
)

// effectiveSSH asks sshd for the settings that apply to the user who may log in.
var effectiveSSH = []string{sshd, "-T", "-f", generation.Current(generation.SSHConfig), "-C", "user=" + sshaccess.User +
	",host=client,addr=192.0.2.1"}

// checkSSH compares sshd with the posture: whether it runs, and with which settings.
func checkSSH(ctx context.Context, system System, want Expectation) ([]difference, error) {
	units, err := showUnits(ctx, system, generation.SSHUnit)
	if err != nil {
		return nil, err
	}
	leased := true
	if _, err := system.Lstat(generation.SSHLease); errors.Is(err, fs.ErrNotExist) {
		leased = false
	} else if err != nil {
		return nil, err
	}
	var differences []difference
	active := units[0]["ActiveState"]
	on := want.Posture.SSH != nil
	state := difference{id: idSSHState}
	if on {
		state.expected = "on"
	}
	if running := active != "inactive" && active != "failed"; running != on {
		state.found = append(state.found, fmt.Sprintf("%s is %s", generation.SSHUnit, active))
	}
	if leased != on {
		state.found = append(state.found, fmt.Sprintf("the lease %s exists: %t", generation.SSHLease, leased))
	}
	if state.found != nil {
		differences = append(differences, state)
	}

	settings, err := ask(ctx, system, effectiveSSH...)
	if err != nil {
		return differences, err
	}
	mismatches, err := sshaccess.Verify(settings, generation.SSHConfigFor())
	if err != nil {
		return differences, err
	}
	var found []string
	for _, mismatch := range mismatches {
		found = append(found, mismatch.String())
	}
	if found != nil {
		differences = append(differences, difference{id: idSSHSettings, found: found})
	}
	return differences, nil
}

// repairSSH ends SSH, or has it started by the part that applies postures.
func repairSSH(ctx context.Context, system System, want Expectation) error {
	if want.Posture.SSH != nil {
		return system.Reapply(ctx)
	}
	if _, err := ask(ctx, system, remove, "-f", "--", generation.SSHLease); err != nil {
		return err
	}
	_, err := ask(ctx, system, systemctl, "stop", generation.SSHUnit)
	return err
}
