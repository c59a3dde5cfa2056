package audit

import (
	"context"
	"fmt"
)

// Debian's units that packaging/ masks, because ours replace them or nothing needs them.
var (
	// systemd-ssh-generator(8) has sshd answer on a socket below /run, and to the host of a
	// virtual machine. Neither way needs a lease.
	debianSSH = []string{"ssh.service", "ssh.socket", "sshd.service", "sshd-unix-local.socket", "sshd-vsock.socket"}
	// The helper has disks asked for their health itself. The last three let every local user
	// speak to a program that runs as root, and nothing on a Base does.
	debianServices = []string{"avahi-daemon.service", "avahi-daemon.socket", "fail2ban.service", "nftables.service", "nginx.service",
		"smartd.service", "smartmontools.service", "systemd-creds.socket", "systemd-hostnamed.socket", "systemd-sysext.socket"}
)

// checkMasks finds units of Debian that could start a server beside ours.
func checkMasks(ctx context.Context, system System, _ Expectation) ([]difference, error) {
	var differences []difference
	for _, group := range []struct {
		id    string
		units []string
	}{{idDebianSSH, debianSSH}, {idDebianServices, debianServices}} {
		units, err := showUnits(ctx, system, group.units...)
		if err != nil {
			return nil, err
		}
		var found []string
		for i, unit := range units {
			load, active := unit["LoadState"], unit["ActiveState"]
			// A unit that is not installed cannot start.
			if load != "masked" && load != "not-found" || active != "inactive" && active != "failed" {
				found = append(found, fmt.Sprintf("%s is %s and %s", group.units[i], load, active))
			}
		}
		if found != nil {
			differences = append(differences, difference{id: group.id, found: found})
		}
	}
	return differences, nil
}
