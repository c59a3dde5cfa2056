package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/audit"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
)

// auditTime bounds an audit, and a fix with the audit after it.
const auditTime = 7 * time.Minute

// Exit codes of audit, in addition to those of the whole program.
const (
	exitWarning  = 10
	exitCritical = 11
)

// severe is the error of an audit that has found something.
type severe struct {
	findings int
	gravest  basev1.Finding_Severity
}

func (e severe) Error() string {
	return fmt.Sprintf("%s to check; the most severe is %s", count(e.findings, "finding"), words(e.gravest.String(), "SEVERITY_"))
}

// exitCode tells scripts how severe it is.
func (e severe) exitCode() int {
	if e.gravest == basev1.Finding_SEVERITY_CRITICAL {
		return exitCritical
	}
	return exitWarning
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (p *program) auditCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "audit",
		Short: "Check whether the live system is as closed as it should be",
		Long: `audit compares the live system with the posture in force: what listens, the packet
filters, the servers, their sandboxes, files, users and updates. It speaks to the
system helper, as root at the Base's console.

Exit codes: 0 nothing has to be done, 10 the gravest finding is a warning, 11 it is
critical; any other means that the audit did not take place.`,
		Example: `  bitbox-base audit
  bitbox-base audit --json
  bitbox-base audit fix firewall-ipv4`,
		Args: commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			return p.audit(c, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_RunAudit{RunAudit: &systemv1.RunAudit{}}})
		},
	}
	command.PersistentFlags().BoolVar(&p.json, "json", false, "print JSON (bitbox.system.v1.AuditResult)")
	command.AddCommand(
		&cobra.Command{
			Use:     "fix ID",
			Short:   "Repair a finding, and audit again",
			Example: `  bitbox-base audit fix firewall-ipv4`,
			Args:    commandline.Args(1, 1),
			RunE: func(c *cobra.Command, args []string) error {
				return p.audit(c, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_FixFinding{FixFinding: &systemv1.FixFinding{Id: args[0]}}})
			},
		},
		&cobra.Command{
			Use:    "repair ID",
			Short:  "Do a repair outside the system helper's sandbox",
			Long:   `repair is what the unit bitbox-base-repair@ID.service runs. Type fix instead.`,
			Hidden: true,
			Args:   commandline.Args(1, 1),
			RunE: func(c *cobra.Command, args []string) error {
				return audit.Repair(c.Context(), audit.Host{}, args[0])
			},
		},
	)
	return command
}

// audit asks the system helper, and prints what the audit has found.
func (p *program) audit(c *cobra.Command, request *systemv1.SystemRequest) error {
	ctx, cancel := context.WithTimeout(c.Context(), auditTime)
	defer cancel()
	reply, err := helperclient.Client{Port: helperclient.Dial(generation.SystemSocket)}.Do(ctx, request, nil)
	if errors.Is(err, ipc.ErrNotRunning) {
		return fmt.Errorf("%w: the system helper does the audit; type: systemctl start bitbox-base-system.service", err)
	}
	if err != nil {
		return err
	}
	result := reply.GetAudit()
	if p.json {
		text, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(result)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(c.OutOrStdout(), "%s\n", text); err != nil {
			return err
		}
	} else {
		if err := describeFindings(c.OutOrStdout(), result.GetFindings()); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(c.OutOrStdout(), "\nThe system helper was built with %s.\n", result.GetBuiltWith()); err != nil {
			return err
		}
	}
	return verdict(result.GetFindings())
}

// verdict returns nil if nothing has to be done.
func verdict(findings []*basev1.Finding) error {
	var result severe
	for _, f := range findings {
		if f.GetSeverity() >= basev1.Finding_SEVERITY_WARNING {
			result.findings++
			result.gravest = max(result.gravest, f.GetSeverity())
		}
	}
	if result.findings == 0 {
		return nil
	}
	return result
}

// describeFindings prints a paragraph for each.
func describeFindings(out io.Writer, findings []*basev1.Finding) error {
	if len(findings) == 0 {
		_, err := fmt.Fprintln(out, "Everything is as it should be.")
		return err
	}
	b := &strings.Builder{}
	for i, f := range findings {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(b, "%-8s  %s (%s)\n", words(f.GetSeverity().String(), "SEVERITY_"), f.GetTitle(), f.GetId())
		fix := f.GetFix()
		if f.GetFixable() {
			fix += "\nType: bitbox-base audit fix " + f.GetId()
		}
		for _, row := range []struct{ label, text string }{
			{"expected", f.GetExpected()}, {"found", f.GetFound()}, {"why", f.GetWhy()}, {"to fix", fix},
		} {
			for j, line := range strings.Split(row.text, "\n") {
				label := ""
				if j == 0 {
					label = row.label
				}
				fmt.Fprintf(b, "          %-8s  %s\n", label, line)
			}
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}
