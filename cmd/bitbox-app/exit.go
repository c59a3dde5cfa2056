package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
)

// exits is the one table of exit codes. The first matching row decides.
var exits = []struct {
	code    int
	meaning string
	fits    func(error) bool
}{
	{23, "some of several Bases failed, for different reasons; if all failed for the same reason, its code is used", func(err error) bool {
		several := severalError{}
		return errors.As(err, &several) && several.differ
	}},
	{13, "the change was not approved", isAny(client.ErrNotApproved)},
	{14, "what the Base reported does not verify; somebody may control it", isAny(client.ErrLyingBase)},
	{15, "the audit has findings", isAny(errFindings)},
	{16, "the change was not confirmed, so the Base undoes it or has undone it", isAny(client.ErrUndone)},
	{17, "nothing to change: the Base already has these settings", isAny(client.ErrNoChange, errNotBanned)},
	{18, "another change is under way; try again", isAny(client.ErrBusy, client.ErrConflict)},
	{19, "the Base does not accept the release file: damaged, not signed, not newer, or for another machine", isAny(client.ErrRelease)},
	{20, "the update failed; the Base went back to the previous version", isAny(client.ErrUpdateUndone)},
	{21, "the Base is installing the update; the command did not wait for the result", isAny(client.ErrUpdateUnknown)},
	{22, "a second board answers to the same provisioning file; it is not used", isAny(client.ErrSecondBoard)},
	{24, "the change was sent; the command did not wait for the result", isAny(client.ErrUnsettled)},
	{25, "a wallet cannot use the Base: closed, not ready, unreachable, or another certificate", isAny(owner.ErrWallet)},
	{2, "the command line is wrong", func(err error) bool {
		return errors.As(err, new(usageError)) || errors.Is(err, client.ErrInvalid) && !client.Refused(err)
	}},
	{3, "no such Base, App, key, finding or transaction, or several match",
		isAny(client.ErrNoSuchBase, client.ErrSeveralBases, client.ErrNoSuchApp, client.ErrNoSuchKey, errNoFinding, errNoTx)},
	{6, "this App was revoked on the Base", isAny(client.ErrRevoked)},
	{7, "the pairing can no longer be used; pair again", isAny(client.ErrPairAgain)},
	{8, "nobody accepted the pairing, or somebody rejected it", isAny(client.ErrNotAccepted, client.ErrRejected)},
	{9, "a pairing failed in a way that may have been an attack", isAny(client.ErrInterference)},
	{10, "too many pairings failed in that way; wait three minutes", isAny(client.ErrTooManyReveals)},
	{12, "the App's own file is damaged, not private, or in use, or the disk is full", isAny(client.ErrStorage)},
	{5, "another server answers there, or the Base does not know this App", isAny(client.ErrSilent, client.ErrNotABase)},
	{4, "the Base cannot be reached, or did not answer in time", isAny(client.ErrUnreachable, client.ErrLost, context.DeadlineExceeded)},
	{11, "the Base refused the request", client.Refused},
	{1, "something else failed", func(error) bool { return true }},
}

// exitInterrupted is the shell's code for Ctrl-C: 128 and the number of SIGINT.
const exitInterrupted = 130

func isAny(kinds ...error) func(error) bool {
	return func(err error) bool {
		for _, kind := range kinds {
			if errors.Is(err, kind) {
				return true
			}
		}
		return false
	}
}

func exitCode(ctx context.Context, err error) int {
	if ctx.Err() != nil {
		return exitInterrupted
	}
	for _, e := range exits {
		if e.fits(err) {
			return e.code
		}
	}
	return 1
}

// sentence is the text for the user.
func sentence(ctx context.Context, err error) string {
	several := severalError{}
	text := client.Explain(err)
	if errors.As(err, &several) {
		text = several.Error()
	}
	switch {
	case ctx.Err() == nil:
		return text
	case isSeveral(err):
		return "interrupted: " + text
	}
	// These errors say what is wrong at the Base.
	if isAny(client.ErrInterference, client.ErrUndone, client.ErrUnsettled, client.ErrUpdateUnknown)(err) {
		return "interrupted: " + text
	}
	return "interrupted"
}

// sentence is the last line of a command that failed.
func (p *program) sentence(ctx context.Context, err error) string {
	text := sentence(ctx, err)
	if text == "interrupted" && p.left != "" {
		text += ": " + p.left
	}
	return text
}

// usageError is a wrong command line.
type usageError struct{ error }

func (e usageError) Error() string { return e.error.Error() + "; see --help" }

// exitCodesTopic is `bitbox-app help exit-codes`.
func exitCodesTopic() *cobra.Command {
	var text strings.Builder
	text.WriteString("bitbox-app exits with one of these codes:\n\n   0  success\n")
	for code := 1; code <= exitInterrupted; code++ {
		for _, e := range exits {
			if e.code == code {
				fmt.Fprintf(&text, "%4d  %s\n", e.code, e.meaning)
			}
		}
	}
	fmt.Fprintf(&text, "%4d  interrupted", exitInterrupted)
	return &cobra.Command{Use: "exit-codes", Short: "List the exit codes", Long: text.String()}
}
