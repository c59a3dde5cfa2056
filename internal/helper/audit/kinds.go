package audit

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
)

// The ids of findings. They are an API: scripts and Apps use them and docs/audit.md lists them,
// so an id never gets another meaning.
const (
	idListener         = "listener-unexpected"
	idEntrySilent      = "entry-silent"
	idFirewall4        = "firewall-ipv4"
	idFirewall6        = "firewall-ipv6"
	idForeign          = "firewall-foreign"
	idLegacy           = "firewall-legacy"
	idGenerationFiles  = "generation-files"
	idGenerationNumber = "generation-number"
	idNGINXConfig      = "nginx-config"
	idNGINXPrivileged  = "nginx-privileged"
	idSSHState         = "ssh-state"
	idSSHSettings      = "ssh-settings"
	idSSHKeys          = "ssh-keys"
	idDebianSSH        = "ssh-debian"
	idDebianServices   = "services-debian"
	idBansSilent       = "fail2ban-silent"
	idBansSettings     = "fail2ban-settings"
	idUnitChanged      = "unit-changed"
	idUnitStopped      = "unit-stopped"
	idFileModes        = "file-modes"
	idWorldWritable    = "world-writable"
	idSetuid           = "setuid"
	idPassword         = "password"
	idSecondRoot       = "second-root"
	idUpdates          = "updates"
	idUpdatesUnknown   = "updates-unknown"
	idDebianSupport    = "debian-support"
	idProvisioning     = "provisioning-late"
	idDisk             = "disk-failing"
	idKernel           = "kernel-settings"
	idKernelHost       = "kernel-settings-host"
	idSecureBoot       = "secure-boot"
	idLeftOut          = "files-left-out"
	idOpenForGood      = "open-for-good"
	// unchecked, followed by the name of a check, says that the check could not be done.
	unchecked = "unchecked-"
)

// kind is what all findings with an id have in common.
type kind struct {
	id string
	// check is the name of the check that finds it.
	check    string
	severity Severity
	// title, expected, why and fix are plain words for an owner.
	title, expected, why, fix string
	// repair is nil if a person has to do it, or if outside is set.
	repair func(context.Context, System, Expectation) error
	// outside is a repair that writes outside the system helper's sandbox. It needs no posture; a
	// unit of its own runs it, see repairUnit.
	outside func(context.Context, System) error
}

func (k kind) fixable() bool { return k.repair != nil || k.outside != nil }

// Advice where only root can help. On the image nobody can become root.
const (
	onImage = "If you do not know it, disconnect the Base from the network. " +
		"On the image, write the image to the disk again, and pair again: no release brings such a thing."
	onDebian = "On a Debian with the package, as root:"
)

// kinds are all kinds of findings, except those that say that a check could not be done; see
// kindOf.
var kinds = []kind{
	{
		id: idListener, check: "sockets", severity: Critical,
		title:    "An unexpected program listens",
		expected: "only NGINX on the entry and on what an owner opened, Avahi for mDNS, the DHCP client, and sshd during its lease",
		why:      "The packet filter keeps strangers away from it, but it should not be there: it is a mistake, or an intruder.",
		fix: onImage + " If somebody who logs in by SSH has started it, end it there first, and look again. " +
			onDebian + " stop its unit, or remove its package.",
	},
	{
		id: idEntrySilent, check: "sockets", severity: Critical,
		title:    "The entry is not listening",
		expected: "NGINX listens on every opened port, over IPv4 and IPv6",
		why:      "No App can connect.",
		fix:      "Restarts NGINX.",
		repair:   restart(generation.ProxyUnit),
	},
	{
		id: idFirewall4, check: "firewall", severity: Critical,
		title:    "The IPv4 packet filter was changed",
		expected: "exactly the rules that were rendered from the posture",
		why:      "An extra rule may open a port or let something out; a missing one may lock you out of the Base.",
		fix:      "Loads the rules again in one step. Established connections stay open.",
		repair:   reload(generation.FirewallUnit),
	},
	{
		id: idFirewall6, check: "firewall", severity: Critical,
		title:    "The IPv6 packet filter was changed",
		expected: "exactly the rules that were rendered from the posture",
		why:      "An extra rule may open a port or let something out; a missing one may lock you out of the Base.",
		fix:      "Loads the rules again in one step. Established connections stay open.",
		repair:   reload(generation.FirewallUnit),
	},
	{
		id: idForeign, check: "foreign-tables", severity: Critical,
		title:    "There are packet rules outside the packet filter",
		expected: "only the tables of iptables and ip6tables, and the bans of fail2ban",
		why:      "Such rules can redirect a port or let packets past the filter, and iptables does not show them.",
		fix:      "Removes them. If the table of bans was changed, fail2ban creates it again with the same bans.",
		repair:   removeForeign,
	},
	{
		id: idLegacy, check: "legacy-rules", severity: Critical,
		title:    "There are rules of the legacy iptables",
		expected: "none",
		why:      "The kernel applies the legacy filter too, and no other command shows its rules.",
		fix:      "Removes them.",
		outside:  flushLegacy,
	},
	{
		id: idGenerationFiles, check: "generation", severity: Critical,
		title:    "The configuration was changed",
		expected: "exactly the files that were rendered from the posture, writable by root only",
		why:      "A server reads them when it starts or reloads, and would then do what no owner signed.",
		fix:      "Writes the configuration again and puts it in force.",
		repair:   reapply,
	},
	{
		id: idGenerationNumber, check: "generation", severity: Critical,
		title:    "The wrong configuration is in force",
		expected: "the one that belongs to the posture in force",
		why:      "The Base may be more open than its owners decided.",
		fix:      "Puts the posture in force again.",
		repair:   reapply,
	},
	{
		id: idNGINXConfig, check: "nginx", severity: Critical,
		title:    "NGINX is running with another configuration",
		expected: generation.Current(generation.ProxyConfig),
		why:      "It may offer something that no owner opened.",
		fix:      "Restarts NGINX. Apps are cut off for a moment and reconnect.",
		repair:   restart(generation.ProxyUnit),
	},
	{
		id: idNGINXPrivileged, check: "nginx", severity: Critical,
		title:    "NGINX is privileged",
		expected: "an ordinary user without capabilities, who cannot gain any",
		why:      "It faces strangers. An attacker who takes it over gets its privileges.",
		fix:      "Restarts NGINX from our original unit. Apps are cut off for a moment and reconnect.",
		repair:   restoreUnits(generation.ProxyUnit),
	},
	{
		id: idSSHState, check: "ssh", severity: Critical,
		title:    "SSH does not match the posture",
		expected: "off",
		why:      "SSH without a lease is an unwatched way in. If SSH should be on and is not, you are locked out.",
		fix:      "Stops sshd and ends its sessions, or starts it if its lease is running.",
		repair:   repairSSH,
	},
	{
		id: idSSHSettings, check: "ssh", severity: Critical,
		title:    "sshd has wrong settings",
		expected: "keys only, no root, one user",
		why:      "A single loosened setting may allow passwords, root or another key.",
		fix:      "Writes the configuration again, and restarts sshd from our original unit.",
		repair: func(ctx context.Context, system System, want Expectation) error {
			if err := reapply(ctx, system, want); err != nil {
				return err
			}
			return restoreUnits(generation.SSHUnit)(ctx, system, want)
		},
	},
	{
		id: idSSHKeys, check: "generation", severity: Critical,
		title:    "The list of SSH keys was changed",
		expected: "the keys that an owner added while SSH is on, otherwise none; writable by root only",
		why:      "Somebody who added a key can log in as soon as SSH is on.",
		fix:      "Writes the file again.",
		repair:   reapply,
	},
	{
		id: idDebianSSH, check: "masks", severity: Critical,
		title:    "Debian's own SSH service can start",
		expected: "it is masked and stopped: our own unit runs SSH, with a lease",
		why:      "It would listen without a lease, and with other settings.",
		fix:      "Stops and masks it.",
		repair:   mask(debianSSH...),
	},
	{
		id: idDebianServices, check: "masks", severity: Warning,
		title:    "One of Debian's own server units can start",
		expected: "they are masked and stopped: our units replace them, or nothing needs them",
		why:      "It would run the server with more privilege and with Debian's configuration.",
		fix:      "Stops and masks them.",
		repair:   mask(debianServices...),
	},
	{
		id: idBansSilent, check: "fail2ban", severity: Critical,
		title:    "fail2ban is not answering",
		expected: "it is running",
		why:      "Brute-force attempts are not blocked.",
		fix:      "Restarts fail2ban. It keeps its bans.",
		repair:   restart(generation.BansUnit),
	},
	{
		id: idBansSettings, check: "fail2ban", severity: Critical,
		title:    "fail2ban has wrong settings",
		expected: "the jails and limits of the posture",
		why:      "Attackers may get more attempts than you allowed, or never be blocked.",
		fix:      "Restarts fail2ban with the configuration in force. It keeps its bans.",
		repair:   restart(generation.BansUnit),
	},
	{
		id: idUnitChanged, check: "units", severity: Critical,
		title:    "A service's sandbox was changed",
		expected: "the units as they were installed, with nothing added",
		why:      "The sandbox keeps an attacker who takes over a service away from the rest of the Base.",
		fix:      "Removes what was added to the units and restarts their services. The next version restores a changed file of the package: `bitbox-app update FILE`.",
		repair:   repairUnits,
	},
	{
		id: idUnitStopped, check: "units", severity: Critical,
		title:    "A service is not running",
		expected: "every service of the Base is running",
		why:      "A part of the Base does not work, or a protection is missing.",
		fix:      "Starts it.",
		repair:   startUnits,
	},
	{
		id: idFileModes, check: "files", severity: Critical,
		title:    "A file of the Base has the wrong owner or mode",
		expected: "owners and modes as they were installed",
		why:      "Others may read a secret, or change what the Base does.",
		fix:      "Restores owner and mode.",
		outside:  repairFiles,
	},
	{
		id: idWorldWritable, check: "loose-files", severity: Warning,
		title:    "Every user can write to a system file",
		expected: "no file below " + strings.Join(systemRoots, ", ") + " that every user can write to",
		why:      "Any compromised service could change what others read or run.",
		fix:      "Removes the write permission for other users.",
		outside:  closeFiles,
	},
	{
		id: idSetuid, check: "loose-files", severity: Critical,
		title:    "An unknown program runs with another user's rights",
		expected: "only Debian's known set-user-ID and set-group-ID programs",
		why:      "Every service could use it to become root. Intruders often leave one to come back later.",
		fix:      onImage + " " + onDebian + " remove its package, or its set-ID bits with `chmod u-s,g-s FILE`.",
	},
	{
		id: idLeftOut, check: "loose-files", severity: Warning,
		title:    "Not all files could be checked",
		expected: fmt.Sprintf("readable files, in each place at most %d, %d in a folder, %d levels", maxEntries, maxInDirectory, maxDepth),
		why:      "Somebody may be hiding a file there, or filling the disk. The Base never makes so many files, and can read all of its own.",
		fix: "Below /home somebody who logged in by SSH made them: remove them there. Below " + middlewareState + " or " + walletState +
			" an attacker may have taken over the service that made them: run `bitbox-app factory-reset`, then pair again; below " + nodeState +
			" add --erase-chain. Elsewhere restart the Base; if it is still there, its disk may be failing.",
	},
	{
		id: idPassword, check: "users", severity: Critical,
		title:    "A user has a password",
		expected: "no user has one: keys are identities",
		why:      "A password can be guessed, at the console and everywhere else that asks for one.",
		fix:      "Removes the password. Keys still work.",
		outside:  removePasswords,
	},
	{
		id: idSecondRoot, check: "users", severity: Critical,
		title:    "There is a second root user",
		expected: "root is the only user with number 0",
		why:      "It is a hidden way to full control.",
		fix:      onImage + " " + onDebian + " remove the user with `userdel`.",
	},
	{
		id: idUpdates, check: "updates", severity: Warning,
		title:    "Security updates are waiting",
		expected: "none",
		why:      "The flaws that they fix are public.",
		fix:      "The Base installs them every night; `bitbox-app update --debian` installs them now.",
	},
	{
		id: idUpdatesUnknown, check: "updates", severity: Info,
		title:    "The Base cannot tell whether security updates are waiting",
		expected: "Debian's package lists, at most 10 days old and not from the future",
		why:      "Without them an old flaw goes unnoticed.",
		fix:      "Check that the Base can reach the internet and that its clock is right; it fetches the lists every day. `bitbox-app update --debian` fetches them now.",
	},
	{
		id: idDebianSupport, check: "debian", severity: Warning,
		title:    "Debian's support of this system ends or has ended",
		expected: "the Debian that a Base is made of, with at least 90 days of support by Debian's security team left",
		why:      "New flaws of the system are no longer fixed, or soon will not be.",
		fix:      "Install a newer release of the Base. On a Debian with the package, upgrade Debian as that release says.",
	},
	{
		id: idProvisioning, check: "provisioning", severity: Warning,
		title:    "A provisioning file lies on the EFI partition",
		expected: "none: the Base has had its first boot",
		why:      "The Base ignores it. But the first boot after a factory reset would read it, and its author would decide who owns the Base.",
		fix:      "Open the disk in another computer and remove " + bootdisk.ProvisionFile + ", then restart the Base.",
	},
	{
		id: idDisk, check: "disks", severity: Warning,
		title:    "A disk says that it is failing",
		expected: "disks that are well",
		why:      "Sooner or later it loses what is on it.",
		fix:      "Replace it. A chain is loaded anew onto another disk; on the disk of the system are also the pairings.",
	},
	{
		id: idKernel, check: "kernel", severity: Warning,
		title:    "The kernel has wrong settings",
		expected: "the settings of " + sysctlFile,
		why:      "They back up the packet filter: a fault in one of the two opens nothing.",
		fix:      "Restores the settings.",
		repair:   restart("systemd-sysctl.service"),
	},
	{
		id: idKernelHost, check: "kernel", severity: Info,
		title:    "Not applicable in a container: settings of the host's kernel",
		expected: "the settings of " + sysctlFile,
		why:      "A Base on its own machine sets them. A container cannot, because its kernel is the host's.",
		fix:      "Nothing can be done inside the container. The Base is just as closed, but a kernel flaw is easier to exploit.",
	},
	{
		id: idSecureBoot, check: "image", severity: Info,
		title:    "Secure Boot is not on",
		expected: "on: the firmware starts only what the builder of the image has signed",
		why:      "Somebody who has the machine in their hands can start something else on it, which then looks like the Base.",
		fix:      "Switch Secure Boot on in the firmware's setup, if it has one. The image brings the keys.",
	},
	{
		id: idOpenForGood, check: "endpoints", severity: Info,
		title:    "An extra API is open for good",
		expected: "as an owner has signed it: it stays open until somebody closes it",
		why:      "What nobody needs any more should not be open. A wallet that is in use needs it.",
		fix:      "If no wallet uses it, close it: bitbox-app unexpose. 'bitbox-app wallet' shows which ones do.",
	},
}

// kindOf finds a kind by its id.
func kindOf(id string) (kind, bool) {
	for _, k := range kinds {
		if k.id == id {
			return k, true
		}
	}
	name, ok := strings.CutPrefix(id, unchecked)
	if !ok || !slices.ContainsFunc(checks, func(c check) bool { return c.name == name }) {
		return kind{}, false
	}
	return kind{
		id: id, check: name, severity: Warning,
		title:    fmt.Sprintf("The check %q could not be done", name),
		expected: "an answer",
		why:      "Something may be wrong there without being noticed.",
		fix:      "Read the reason. If it persists, restart the Base, then read the system helper's log.",
	}, true
}

// checkOf finds a check by its name, which comes from the table above.
func checkOf(name string) check {
	for _, c := range checks {
		if c.name == name {
			return c
		}
	}
	panic("the table of kinds names the check " + name + ", which does not exist")
}
