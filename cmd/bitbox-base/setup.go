package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/provision"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/setup"
)

// errNotConfirmed is the error of a command when the answer is not yes.
var errNotConfirmed = errors.New("not confirmed; nothing was changed")

// setupFlags are the flags of setup.
type setupFlags struct {
	options          setup.Options
	root             string
	yes, undo, renew bool
}

func (p *program) setupCommand() *cobra.Command {
	f := setupFlags{}
	command := &cobra.Command{
		Use:   "setup",
		Short: "Make this machine a Base",
		Long: `setup turns a Debian 13 machine with the package installed into a Base. It first shows
what it will change, and asks. It stops and masks Debian's servers, starts those of the
Base, hardens the kernel and the accounts, and checks that the packet filter and NGINX
run. If anything fails, it restores everything.

SSH is off afterwards. Over SSH it refuses, unless ` + provision.Directory + ` has keys
(authorized_keys, a public key a line) and a lease from the first start on
(ssh-lease, such as 2h).

--undo makes the machine what it was; removing the package does that, too.`,
		Example: `  bitbox-base setup
  bitbox-base setup --yes --no-usb-input
  bitbox-base setup --yes --root /mnt/image
  bitbox-base setup --undo`,
		Args: commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return runSetup(c, f) },
	}
	command.Flags().BoolVar(&f.yes, "yes", false, "do not ask")
	command.Flags().BoolVar(&f.undo, "undo", false, "restore the machine to what it was")
	command.Flags().BoolVar(&f.renew, "renew", false, "bring a Base in line with a new version of the package")
	command.Flags().StringVar(&f.root, "root", "/", "set up the system in this folder (an image), and start nothing")
	command.Flags().BoolVar(&f.options.NoUSBInput, "no-usb-input", false, "disable USB keyboards and mice, if the display is elsewhere")
	command.Flags().BoolVar(&f.options.NoDisplay, "no-display", false, "this machine has no display; an owner's App lets other Apps in")
	_ = command.Flags().MarkHidden("renew") // its only error is an unknown flag
	_ = command.MarkFlagDirname("root")
	command.MarkFlagsMutuallyExclusive("undo", "renew")
	return command
}

func runSetup(c *cobra.Command, f setupFlags) error {
	root, err := filepath.Abs(f.root)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return setup.ErrNotRoot
	}
	if root != "/" {
		return setupImage(c, root, f)
	}
	lock, err := setup.Lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	m := setup.Machine{Out: c.OutOrStdout()}
	switch {
	case f.renew:
		return m.Renew(c.Context())
	case f.undo:
		return undoSetup(c, m, f)
	}
	if err := setup.Check(root); err != nil {
		return err
	}
	err = setup.Choose(root, f.options)
	if err == nil {
		if err := m.Renew(c.Context()); err != nil {
			return err
		}
		fmt.Fprintln(c.OutOrStdout(), "This machine is already a Base; everything is in place.")
		return nil
	}
	if !errors.Is(err, setup.ErrNotSetUp) {
		return err
	}
	if m.KeepSSH = setup.OverSSH(os.Environ()); m.KeepSSH && !sshProvided() {
		return setup.ErrOverSSH
	}
	if err := setup.CheckEntry(); err != nil {
		return err
	}
	plan, err := m.Plan(c.Context(), f.options)
	if err != nil {
		return err
	}
	if err := m.Describe(plan); err != nil {
		return err
	}
	if err := confirm(c, f.yes); err != nil {
		return err
	}
	if err := m.SetUp(c.Context(), plan); err != nil {
		return err
	}
	fmt.Fprintln(c.OutOrStdout(), "This machine is a Base. Pair an App with it: bitbox-app pair")
	return nil
}

// sshProvided tells whether SSH is to be on from the first start. At its end, setup checks
// whether it is.
func sshProvided() bool {
	p, err := provision.Read(generation.StateDirectory, provision.Directory)
	return err == nil && len(p.SSHKeys) > 0 && p.SSHLease > 0
}

func undoSetup(c *cobra.Command, m setup.Machine, f setupFlags) error {
	if m.KeepSSH = setup.OverSSH(os.Environ()); m.KeepSSH {
		// Stopping the services ends their sessions, and this program with them.
		return errors.New("undoing the setup would end your SSH session; do it at the machine's own screen and keyboard")
	}
	fmt.Fprintln(c.OutOrStdout(), "This machine becomes what it was: the Base stops, the former packet filter is restored, and Debian's servers that were running start again.")
	if err := confirm(c, f.yes); err != nil {
		return err
	}
	return m.Undo(c.Context())
}

// setupImage changes the files of an image.
func setupImage(c *cobra.Command, root string, f setupFlags) error {
	if f.undo {
		record, err := setup.ReadRecord(root)
		if err != nil {
			return err
		}
		left, err := record.Undo(root)
		if err != nil {
			return err
		}
		for _, path := range left {
			fmt.Fprintln(c.OutOrStdout(), "left unchanged, because somebody has edited it:", path)
		}
		return setup.Forget(root)
	}
	if err := setup.Check(root); err != nil {
		return err
	}
	err := setup.Choose(root, f.options)
	switch {
	case err == nil:
		_, err = setup.Renew(root)
		return err
	case !errors.Is(err, setup.ErrNotSetUp):
		return err
	}
	plan, err := setup.Plan(root, f.options, nil)
	if err != nil {
		return err
	}
	if err := confirm(c, f.yes); err != nil {
		return err
	}
	return setup.SetUp(c.Context(), root, plan)
}

// confirm asks the user for a yes.
func confirm(c *cobra.Command, yes bool) error {
	if yes {
		return nil
	}
	fmt.Fprint(c.OutOrStdout(), "Go on? Type yes: ")
	answers := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(c.InOrStdin()).ReadString('\n') // an end is not a yes
		answers <- strings.TrimSpace(line)
	}()
	select {
	case answer := <-answers:
		if answer != "yes" {
			return errNotConfirmed
		}
		return nil
	case <-c.Context().Done():
		return errors.Join(errNotConfirmed, context.Cause(c.Context()))
	}
}
