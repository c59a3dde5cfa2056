package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/spf13/cobra"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore"
	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore/verify"
	"github.com/BitBoxSwiss/bitbox-base/internal/boottime"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/audit"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/chaindisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/factoryreset"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/host"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/ledger"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/nodeorders"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/programs"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/provision"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/system"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/timezone"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
	"github.com/BitBoxSwiss/bitbox-base/internal/version"
)

const (
	// auditInterval is how often the Base audits itself.
	auditInterval = 5 * time.Minute
	// monitorInterval is how often it checks its services and its disk.
	monitorInterval = 15 * time.Second
	// localTime bounds one change made by root.
	localTime = 3 * time.Minute
)

func (p *program) systemCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "system",
		Short: "Run the system helper, the Base's one privileged process",
		Long: `system runs the system helper: it decides who is let in and how open the Base is,
and makes it so. systemd starts it as root on the appliance.`,
		Example: `  bitbox-base system`,
		Args:    commandline.Args(0, 0),
		RunE:    func(c *cobra.Command, _ []string) error { return runSystem(c.Context()) },
	}
	command.AddCommand(&cobra.Command{
		Use:   "prepare",
		Short: "Bring the configuration on disk in line with the posture, at boot",
		Long: `prepare runs at boot before the packet filter is loaded and before anything listens.
What was tried and not confirmed when the power went is undone on disk by then.`,
		Example: `  bitbox-base system prepare`,
		Args:    commandline.Args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			config, err := systemConfig()
			if err != nil {
				return err
			}
			if err := ledger.Prepare(config.Config); err != nil {
				return err
			}
			if err := factoryreset.Prepare(config.Directory); err != nil {
				// A reset could then be ordered only with a new inode.
				config.Logger.Error("a factory reset cannot be prepared", "error", err)
			}
			return nil
		},
	}, &cobra.Command{
		Use:   "provision",
		Short: "Take the provisioning file at the first boot of the image",
		Long: `provision runs at boot before all that keeps a state. At the first boot it takes the
provisioning file that lies on the EFI partition, if one does, and removes it from there. A
file that comes later changes nothing.`,
		Example: `  bitbox-base system provision`,
		Args:    commandline.Args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			return provision.Install(provision.Config{
				ESP: provision.BootESP{}, State: generation.StateDirectory,
				Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
			})
		},
	})
	command.AddCommand(finishResetCommand(), discardCommand(), limitsCommand(), &cobra.Command{
		Use:   "install-bitcoin-core",
		Short: "Verify and install the release of Bitcoin Core that an owner has brought",
		Long: `install-bitcoin-core is what the unit ` + nodeorders.Unit + ` runs: it verifies
the release that an owner's App has brought, and unpacks it. It leaves the result for the
system helper.`,
		Example: `  bitbox-base system install-bitcoin-core`,
		Args:    commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			return nodeorders.Install(c.Context(), nodeorders.Incoming, verify.Folder, runtime.GOARCH, bitcoincore.Owned)
		},
	})
	return command
}

// systemConfig is the configuration of the appliance.
func systemConfig() (system.Config, error) {
	bootID, err := boottime.ID()
	if err != nil {
		return system.Config{}, err
	}
	given, err := provision.Read(generation.StateDirectory, provision.Directory)
	if err != nil {
		return system.Config{}, err
	}
	return system.Config{OldestSafe: version.OldestSafe, Architecture: runtime.GOARCH, Config: ledger.Config{
		Directory:   generation.StateDirectory,
		Factory:     given.Factory(),
		FirstLease:  given.SSHLease,
		NoDisplay:   given.NoDisplay,
		Claim:       given.Claim,
		Running:     runningVersion(),
		ForgetClaim: func() error { return provision.ForgetClaim(generation.StateDirectory) },
		Clock:       boottime.Clock,
		BootID:      bootID,
		Logger:      slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}}, nil
}

// runningVersion is empty for a build that is no release.
func runningVersion() string {
	if !release.IsVersion(version.Software) {
		return ""
	}
	return version.Software
}

func runSystem(ctx context.Context) error {
	config, err := systemConfig()
	if err != nil {
		return err
	}
	if err := programs.Separate(); err != nil {
		// They run beside the helper, within the bounds of its unit.
		config.Logger.Warn("programs have no cgroup of their own", "error", err)
	}
	machine := host.New(host.MaxPrograms)
	auditor := &host.Auditor{Log: config.Logger}
	config.Live, config.Banner, config.Network, config.Auditor = machine.Reserved(), machine, machine, auditor
	config.Sockets = machine
	config.Identities = machine.Identities
	config.AuditInterval = auditInterval
	config.Restart = machine.Restart
	config.Disks, config.DiskStore = machine, chaindisk.TheStore
	config.Systemd, config.MonitorInterval, config.TimeZone = machine, monitorInterval, timezone.At("/")
	config.Node = settings.At("/")
	if config.Services, err = services.Read(services.OwnFile); err != nil {
		// The Base's own services are managed all the same.
		config.Logger.Error("the services of this appliance are not managed", "audit", true, "error", err)
	}
	if config.Updates, err = newReceiver(); err != nil {
		// The protections of the Base do not depend on this.
		config.Logger.Error("this Base takes no updates", "error", err)
	}
	users, err := caller.LookUp()
	if err != nil {
		return err
	}
	listeners, err := systemListeners()
	if err != nil {
		return err
	}
	helper, err := system.Open(config)
	if errors.Is(err, factoryreset.ErrOrdered) {
		return errors.Join(err, factoryreset.Restart(ctx, config.Directory, config.Restart, machine.ResetFailed))
	}
	if err != nil {
		return err
	}
	auditor.System = audit.Host{Apply: helper.Reapply, Wait: machine.AwaitClosing}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	running := make(chan struct{})
	go func() {
		defer close(running)
		helper.Run(ctx)
	}()
	err = helper.Serve(ctx, users, listeners...)
	stop()
	<-running
	return errors.Join(err, helper.Close())
}

// systemListeners are systemd's sockets; a helper started by hand makes its own.
func systemListeners() ([]*net.UnixListener, error) {
	passed, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("take systemd's sockets: %w", err)
	}
	var listeners []*net.UnixListener
	for _, listener := range passed {
		unix, ok := listener.(*net.UnixListener)
		if !ok {
			return nil, fmt.Errorf("take systemd's sockets: one is %T, not a unix socket; repair bitbox-base-system.socket", listener)
		}
		unix.SetUnlinkOnClose(false) // it is systemd's
		listeners = append(listeners, unix)
	}
	if len(listeners) > 0 {
		return listeners, nil
	}
	listener, err := ipc.Listen(generation.SystemSocket, 0o600)
	if err != nil {
		return nil, err
	}
	return []*net.UnixListener{listener}, nil
}

// applianceAuthority is the ceremony authority of the appliance's system helper, if there is one
// and no other state was given.
func applianceAuthority(c *cobra.Command) (pairing.Client, bool) {
	if _, err := os.Stat(generation.SystemSocket); err != nil || c.Flags().Changed("state") {
		return pairing.Client{}, false
	}
	return helperclient.Client{Port: helperclient.Dial(generation.SystemSocket)}.Authority(), true
}

func (p *program) localCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "local",
		Short: "Close the Base, or go back to earlier settings, as root at its console",
		Long: `local acts for root at the Base's console, in place of an owner's App. The Base's history
records it as local. To open a pairing window or to take an App away, see 'bitbox-base pairing'.`,
		Example: `  bitbox-base local lockdown
  bitbox-base local unlock
  bitbox-base local back 7`,
		Args: commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	restrict := func(r *systemv1.Restrict) *systemv1.SystemRequest {
		return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Restrict{Restrict: r}}
	}
	change := func(l *systemv1.LocalChange) *systemv1.SystemRequest {
		return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_LocalChange{LocalChange: l}}
	}
	command.AddCommand(
		localVerb("lockdown", "Switch SSH off, close extra APIs and pairing from the network",
			restrict(&systemv1.Restrict{What: &systemv1.Restrict_Lockdown{Lockdown: &systemv1.Lockdown{}}})),
		localVerb("ssh-off", "End SSH's lease and its sessions",
			restrict(&systemv1.Restrict{What: &systemv1.Restrict_EndLease{EndLease: &systemv1.LeaseEnded{Kind: string(posture.KindSSH)}}})),
	)
	back := &cobra.Command{
		Use:     "back REVISION",
		Short:   "Go back to an earlier revision of the posture",
		Example: `  bitbox-base local back 7`,
		Args:    commandline.Args(1, 1),
	}
	back.RunE = func(c *cobra.Command, args []string) error {
		var revision uint64
		if _, err := fmt.Sscanf(args[0], "%d", &revision); err != nil || fmt.Sprint(revision) != args[0] {
			return usageError{fmt.Errorf("%q is not a revision; it is a number, as 'bitbox-app posture history' shows", args[0])}
		}
		return doLocal(c, change(&systemv1.LocalChange{Change: &systemv1.LocalChange_GoBack{GoBack: &systemv1.GoBack{Revision: revision}}}))
	}
	unlock := &cobra.Command{
		Use: "unlock", Short: "Lift lockdowns and closed pairing",
		Long: `unlock lifts lockdowns and closed pairing. SSH and extra APIs stay closed. With --reopen
those whose time is not over are open again.`,
		Example: "  bitbox-base local unlock\n  bitbox-base local unlock --reopen", Args: commandline.Args(0, 0),
	}
	reopen := unlock.Flags().Bool("reopen", false, "open what the lockdown has closed, for the rest of its time")
	unlock.RunE = func(c *cobra.Command, _ []string) error {
		return doLocal(c, change(&systemv1.LocalChange{Change: &systemv1.LocalChange_LiftRestrictions{
			LiftRestrictions: &systemv1.LiftRestrictions{Reopen: *reopen}}}))
	}
	command.AddCommand(unlock, back, localResetCommand())
	return command
}

func localVerb(use, short string, request *systemv1.SystemRequest) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Example: "  bitbox-base local " + use, Args: commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return doLocal(c, request) },
	}
}

func doLocal(c *cobra.Command, request *systemv1.SystemRequest) error {
	ctx, cancel := context.WithTimeout(c.Context(), localTime)
	defer cancel()
	client := helperclient.Client{Port: helperclient.Dial(generation.SystemSocket)}
	_, err := client.Do(ctx, request, func(p *systemv1.Progress) {
		fmt.Fprintln(c.OutOrStdout(), strings.TrimSpace(p.GetStep()+" "+filepath.Base(p.GetDetail())))
	})
	if err == nil {
		fmt.Fprintln(c.OutOrStdout(), "done")
	}
	return err
}
