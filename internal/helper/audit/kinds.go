package audit

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
)

// The ids of findings. They are an API: scripts and Apps know them, docs/audit.md
// lists them, and none ever gets another meaning.
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
	idKernel           = "kernel-settings"
	idKernelHost       = "kernel-settings-host"
	idLeftOut          = "files-left-out"
	// unchecked, with the name of a check, says that it could not be done.
	unchecked = "unchecked-"
)

// kind is what all findings with an id have in common.
type kind struct {
	id string
	// check is the name of the one that finds it.
	check    string
	severity Severity
	// title, expected, why and fix are plain words for an owner.
	title, expected, why, fix string
	// repair is nil if a person has to do it, or if outside is set.
	repair func(context.Context, System, Expectation) error
	// outside is the repair if it writes where the system helper's own sandbox does
	// not let it. It needs no posture; a unit of its own does it, see repairUnit.
	outside func(context.Context, System) error
}

func (k kind) fixable() bool { return k.repair != nil || k.outside != nil }

// kinds are all that there are, but for those that say that a check could not be
// done; see kindOf.
var kinds = []kind{
	{
		id: idListener, check: "sockets", severity: Critical,
		title:    "Something listens that nobody asked for",
		expected: "NGINX on the entry and what an owner opened, Avahi for mDNS, the DHCP client, sshd while it is leased; nothing else",
		why:      "The packet filter keeps strangers from it, but it should not be there: it is a mistake, or somebody is inside.",
		fix:      "Find out what the unit is, and stop it or remove its package. If you do not know it, take the Base off the network.",
	},
	{
		id: idEntrySilent, check: "sockets", severity: Critical,
		title:    "The entry does not listen",
		expected: "NGINX listens on every opened port, over IPv4 and IPv6",
		why:      "No App gets in.",
		fix:      "Restarts NGINX.",
		repair:   restart(generation.ProxyUnit),
	},
	{
		id: idFirewall4, check: "firewall", severity: Critical,
		title:    "The packet filter for IPv4 was changed",
		expected: "exactly the rules that were rendered from the posture",
		why:      "A rule too many may open a port or let something out; one too few may close the Base to you.",
		fix:      "Loads the rules anew, in one step. Established connections go on.",
		repair:   reload(generation.FirewallUnit),
	},
	{
		id: idFirewall6, check: "firewall", severity: Critical,
		title:    "The packet filter for IPv6 was changed",
		expected: "exactly the rules that were rendered from the posture",
		why:      "A rule too many may open a port or let something out; one too few may close the Base to you.",
		fix:      "Loads the rules anew, in one step. Established connections go on.",
		repair:   reload(generation.FirewallUnit),
	},
	{
		id: idForeign, check: "foreign-tables", severity: Critical,
		title:    "There are packet rules beside the packet filter",
		expected: "the tables of iptables and ip6tables, and the bans of fail2ban",
		why:      "Such rules can redirect a port or let packets past the filter, and iptables does not show them.",
		fix:      "Removes them. If the table of bans was changed, fail2ban makes it anew with the same bans.",
		repair:   removeForeign,
	},
	{
		id: idLegacy, check: "legacy-rules", severity: Critical,
		title:    "There are rules of the older iptables",
		expected: "none",
		why:      "The kernel asks the older filter as well, and nothing else shows its rules.",
		fix:      "Removes them.",
		outside:  flushLegacy,
	},
	{
		id: idGenerationFiles, check: "generation", severity: Critical,
		title:    "The configuration was changed",
		expected: "exactly the files that were rendered from the posture, writable by root only",
		why:      "A server reads them when it starts or reloads, and would then do what no owner signed.",
		fix:      "Writes the configuration anew and puts it in force.",
		repair:   reapply,
	},
	{
		id: idGenerationNumber, check: "generation", severity: Critical,
		title:    "Another configuration is in force",
		expected: "the one that belongs to the posture in force",
		why:      "The Base may be more open than its owners decided.",
		fix:      "Puts the posture in force again.",
		repair:   reapply,
	},
	{
		id: idNGINXConfig, check: "nginx", severity: Critical,
		title:    "NGINX runs with another configuration",
		expected: generation.Current(generation.ProxyConfig),
		why:      "It may offer something that no owner opened.",
		fix:      "Restarts NGINX. Apps are cut off for a moment and connect again.",
		repair:   restart(generation.ProxyUnit),
	},
	{
		id: idNGINXPrivileged, check: "nginx", severity: Critical,
		title:    "NGINX is privileged",
		expected: "an ordinary user without capabilities, who cannot gain any",
		why:      "It faces strangers; whoever takes it over gets what it has.",
		fix:      "Restarts NGINX from our unit, without what was changed in it. Apps are cut off for a moment and connect again.",
		repair:   restoreUnits(generation.ProxyUnit),
	},
	{
		id: idSSHState, check: "ssh", severity: Critical,
		title:    "SSH is not as the posture says",
		expected: "off",
		why:      "SSH that is on without a lease is a way in that nobody watches; one that should be on and is not locks you out.",
		fix:      "Stops sshd with all its sessions, or starts it while it is leased.",
		repair:   repairSSH,
	},
	{
		id: idSSHSettings, check: "ssh", severity: Critical,
		title:    "sshd has other settings",
		expected: "the settings of the table in internal/helper/sshaccess: keys only, no root, one user",
		why:      "One loosened setting may let in passwords, root or another key.",
		fix:      "Writes the configuration anew, and restarts sshd without what was changed in its unit.",
		repair: func(ctx context.Context, system System, want Expectation) error {
			if err := reapply(ctx, system, want); err != nil {
				return err
			}
			return restoreUnits(generation.SSHUnit)(ctx, system, want)
		},
	},
	{
		id: idSSHKeys, check: "generation", severity: Critical,
		title:    "The file of SSH keys was changed",
		expected: "the keys that an owner has added, while SSH is on; else none; writable by root only",
		why:      "Whoever slipped in a key can log in as soon as SSH is on.",
		fix:      "Writes the file anew.",
		repair:   reapply,
	},
	{
		id: idDebianSSH, check: "masks", severity: Critical,
		title:    "Debian's own SSH service can start",
		expected: "it is masked and stopped: SSH has a unit of our own, with a lease",
		why:      "It would listen without a lease, and with other settings.",
		fix:      "Stops and masks it.",
		repair:   mask(debianSSH...),
	},
	{
		id: idDebianServices, check: "masks", severity: Warning,
		title:    "Debian's own unit of a server can start",
		expected: "they are masked and stopped: our units replace them",
		why:      "It would run the server with more privilege and with Debian's configuration.",
		fix:      "Stops and masks it.",
		repair:   mask(debianServices...),
	},
	{
		id: idBansSilent, check: "fail2ban", severity: Critical,
		title:    "fail2ban does not answer",
		expected: "it runs",
		why:      "Nobody who tries and tries is blocked.",
		fix:      "Restarts fail2ban. It remembers its bans.",
		repair:   restart(generation.BansUnit),
	},
	{
		id: idBansSettings, check: "fail2ban", severity: Critical,
		title:    "fail2ban has other settings",
		expected: "the jails and limits of the posture",
		why:      "Somebody may get more tries than you allowed, or never be blocked.",
		fix:      "Restarts fail2ban with the configuration in force. It remembers its bans.",
		repair:   restart(generation.BansUnit),
	},
	{
		id: idUnitChanged, check: "units", severity: Critical,
		title:    "A service's sandbox was changed",
		expected: "the units as they were installed, without additions",
		why:      "The sandbox is what keeps somebody who takes over a service from the rest of the Base.",
		fix:      "Removes additions to the units and restarts the services concerned. A file of the package that was changed comes back with the next version: `bitbox-app update FILE`.",
		repair:   repairUnits,
	},
	{
		id: idUnitStopped, check: "units", severity: Critical,
		title:    "A service does not run",
		expected: "every service of the Base runs",
		why:      "Something of the Base does not work, or a protection is missing.",
		fix:      "Starts it.",
		repair:   startUnits,
	},
	{
		id: idFileModes, check: "files", severity: Critical,
		title:    "A file of the Base has another owner or mode",
		expected: "owners and modes as they were installed",
		why:      "Who should not may read a secret, or change what the Base does.",
		fix:      "Restores owner and mode.",
		outside:  repairFiles,
	},
	{
		id: idWorldWritable, check: "loose-files", severity: Warning,
		title:    "Everybody can write a system file",
		expected: "no file below " + strings.Join(systemRoots, ", ") + " that every user can write",
		why:      "Any service that is taken over could change what others read or run.",
		fix:      "Takes the permission to write away from everybody else.",
		outside:  closeFiles,
	},
	{
		id: idSetuid, check: "loose-files", severity: Critical,
		title:    "A program runs with another's rights",
		expected: "Debian's known set-user-ID and set-group-ID programs only",
		why:      "It is a ladder to root for every service, and a common way to come back later.",
		fix:      "If you do not know it: take the Base off the network. Else remove its package, or its bit with `chmod u-s,g-s FILE`.",
	},
	{
		id: idLeftOut, check: "loose-files", severity: Warning,
		title:    "There are too many files to look at all of them",
		expected: fmt.Sprintf("at most %d files, %d in a folder, %d levels, in each place", maxEntries, maxInDirectory, maxDepth),
		why:      "Somebody may hide a file in a crowd, or use up the disk. Nothing of the Base makes so many.",
		fix:      "Below " + middlewareState + " the Middleware made them, which somebody may have taken over: `bitbox-app factory-reset`, then pair again. Below /home who logged in by SSH made them: remove them there.",
	},
	{
		id: idPassword, check: "users", severity: Critical,
		title:    "A user has a password",
		expected: "nobody has one: keys are identities",
		why:      "A password can be guessed, at the console and wherever else one is asked for.",
		fix:      "Takes the password away. Keys go on working.",
		outside:  removePasswords,
	},
	{
		id: idSecondRoot, check: "users", severity: Critical,
		title:    "There is a second root",
		expected: "root is the only user with number 0",
		why:      "It is a hidden way to all rights.",
		fix:      "If you did not add it, take the Base off the network. Else remove the user with `userdel`.",
	},
	{
		id: idUpdates, check: "updates", severity: Warning,
		title:    "Security updates are waiting",
		expected: "none",
		why:      "What they mend is known to everybody by now.",
		fix:      "The Base installs them by itself each night; `bitbox-app update --debian` installs them now.",
	},
	{
		id: idUpdatesUnknown, check: "updates", severity: Info,
		title:    "It is not known whether security updates are waiting",
		expected: "Debian's lists of packages, as old as Debian lets them be (10 days) and not from the future",
		why:      "Without them an old flaw goes unnoticed.",
		fix:      "See to it that the Base reaches the internet and that its clock is right; it fetches the lists each day. `bitbox-app update --debian` fetches them now.",
	},
	{
		id: idKernel, check: "kernel", severity: Warning,
		title:    "The kernel has other settings",
		expected: "the settings of " + sysctlFile,
		why:      "They stand beside the packet filter, so that a fault in one of the two opens nothing.",
		fix:      "Sets them again.",
		repair:   restart("systemd-sysctl.service"),
	},
	{
		id: idKernelHost, check: "kernel", severity: Info,
		title:    "Not applicable in a container: settings of the host's kernel",
		expected: "the settings of " + sysctlFile,
		why:      "A Base on a machine of its own sets them. A container cannot: its kernel is the host's.",
		fix:      "Nothing can be done inside. The Base is not less closed for that, but a fault of the kernel is easier to use.",
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
		why:      "What is not looked at may be wrong.",
		fix:      "Read the reason. If it stays, restart the Base; then look into the log of the system helper.",
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
