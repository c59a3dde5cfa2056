package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/terminal"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

// auditTime is how long an audit may take: the Base asks all of its servers.
const auditTime = 4 * time.Minute

var (
	// errFindings: the audit found something that a person has to deal with.
	errFindings = errors.New("the audit has findings")
	// errNoFinding: the audit has no such finding.
	errNoFinding = errors.New("no such finding")
)

func (p *program) auditCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "audit",
		Short: "Have the Base check whether it is as closed as it should be",
		Long: `audit inspects the live system of the Base (sockets, packet filters, servers, files, users)
and compares it with the posture. It lists the differences, the worst first. If there is
more than information, the exit code says so.`,
		Example: `  bitbox-app audit
  bitbox-app audit --json
  bitbox-app audit --all
  bitbox-app audit fix ssh-settings`,
		Args:        commandline.Args(0, 0),
		Annotations: onSeveral,
		RunE: func(c *cobra.Command, _ []string) error {
			p.left = "the audit changes nothing"
			return ask(p, c, auditTime, query[auditAnswer]{
				doing: "The Base is inspecting itself, which may take a minute",
				ask:   askAudit,
				json:  func(a auditAnswer) any { return a.RunAuditResponse },
				show: func(a auditAnswer) error {
					if err := p.printFindings(a.GetFindings()); err != nil {
						return err
					}
					text := ""
					if a.reach != "" {
						text += "\nInternet: " + a.reach + ".\n"
					}
					if a.GetBuiltWith() != "" {
						text += "\nThe Base's system helper was built with " + client.Printable(a.GetBuiltWith()) + ".\n"
					}
					return p.printf("%s", text)
				},
				columns: []string{"SEVERITY", "ID", "WHAT", "FIX"},
				rows: func(a auditAnswer) [][]string {
					var rows [][]string
					for _, f := range a.GetFindings() {
						rows = append(rows, findingCells(f))
					}
					return rows
				},
				empty:   "as closed as it should be",
				table:   findingTable,
				verdict: verdict,
			})
		},
	}
	command.AddCommand(p.auditFixCommand())
	return command
}

// auditAnswer is what an audit found, and where the signed posture lets the node go; empty if
// there is no node.
type auditAnswer struct {
	*basev1.RunAuditResponse
	reach string
}

func askAudit(ctx context.Context, session *client.Session) (a auditAnswer, err error) {
	if a.RunAuditResponse, err = session.Audit.RunAudit(ctx, &basev1.RunAuditRequest{}); err != nil {
		return a, err
	}
	worstFirst(a.GetFindings())
	node, err := askNode(ctx, session)
	if node.posture != nil {
		a.reach = words.English.NodeReach(node.posture)
	}
	if errors.Is(err, client.ErrLyingBase) || ctx.Err() != nil {
		return a, err
	}
	return a, nil // the findings count, whether or not the node can be asked
}

// verdict is nil if all findings are mere information.
func verdict(found auditAnswer) error {
	serious := 0
	for _, f := range found.GetFindings() {
		if isSerious(f) {
			serious++
		}
	}
	if serious > 0 {
		return fmt.Errorf("%w: %d", errFindings, serious)
	}
	return nil
}

func findingCells(f *basev1.Finding) []string {
	fix := "by hand"
	if f.GetFixable() {
		fix = "bitbox-app audit fix " + f.GetId()
	}
	return []string{severity(f), f.GetId(), f.GetTitle(), fix}
}

// findingTable makes serious findings stand out.
func findingTable(t *table) {
	t.whole("ID", "FIX").styled("SEVERITY", func(cell string) terminal.Style {
		switch cell {
		case "info":
			return terminal.Plain
		case "warning":
			return terminal.Yellow
		}
		return terminal.Red
	})
}

func (p *program) printFindings(findings []*basev1.Finding) error {
	if len(findings) == 0 {
		return p.printf("The Base is as closed as it should be.\n")
	}
	table := p.table("SEVERITY", "ID", "WHAT", "FIX")
	findingTable(table)
	for _, f := range findings {
		table.row(findingCells(f)...)
	}
	if err := table.print(); err != nil {
		return err
	}
	for _, f := range findings {
		if err := p.printFinding(f); err != nil {
			return err
		}
	}
	return nil
}

// printFinding prints a whole finding. Found may have several lines.
func (p *program) printFinding(f *basev1.Finding) error {
	text := "\n" + client.Printable(f.GetId()) + "\n"
	for _, part := range []struct{ name, text string }{
		{"Expected", f.GetExpected()}, {"Found", f.GetFound()}, {"Why it matters", f.GetWhy()}, {"Fix", f.GetFix()},
	} {
		for n, line := range strings.Split(strings.TrimSpace(part.text), "\n") {
			name := part.name + ":"
			if n > 0 {
				name = ""
			}
			text += fmt.Sprintf("  %-16s%s\n", name, client.Printable(line))
		}
	}
	return p.printf("%s", text)
}

func (p *program) auditFixCommand() *cobra.Command {
	command := &cobra.Command{
		Use:               "fix ID",
		Short:             "Have the Base repair a finding",
		Long:              `fix has the Base repair a finding. A fix only closes things; it is shown before it is made.`,
		Example:           `  bitbox-app audit fix ssh-settings`,
		Args:              commandline.Args(1, 1),
		ValidArgsFunction: p.completeFindings,
	}
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, args []string) error {
		return p.call(c.Context(), changeTime, func(ctx context.Context, session *client.Session) error {
			finding, err := findFinding(ctx, session, args[0])
			if err != nil {
				return err
			}
			if err := asking.confirm(ctx, fmt.Sprintf("The Base will repair %s:\n  %s\n", client.Printable(finding.GetId()),
				p.out.Fold("  ", client.Printable(finding.GetFix())))); err != nil {
				return err
			}
			if _, err := session.Audit.FixFinding(ctx, &basev1.FixFindingRequest{Id: finding.GetId()}); err != nil {
				return err
			}
			if p.json {
				return p.printJSON(map[string]string{"fixed": finding.GetId()})
			}
			return p.printf("Fixed.\n")
		})
	}
	return command
}

// findFinding runs an audit, and returns the finding if the Base can fix it.
func findFinding(ctx context.Context, session *client.Session, id string) (*basev1.Finding, error) {
	found, err := session.Audit.RunAudit(ctx, &basev1.RunAuditRequest{})
	if err != nil {
		return nil, err
	}
	for _, f := range found.GetFindings() {
		switch {
		case f.GetId() != id:
		case !f.GetFixable():
			return nil, fmt.Errorf("%w: the Base cannot repair it by itself; repair it by hand: %s", errNoFinding, client.Printable(f.GetFix()))
		default:
			return f, nil
		}
	}
	return nil, fmt.Errorf("%w: %q; see 'bitbox-app audit'", errNoFinding, client.Printable(id))
}

func (p *program) completeFindings(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var list []string
	err := p.call(c.Context(), completeTime, func(ctx context.Context, session *client.Session) error {
		found, err := session.Audit.RunAudit(ctx, &basev1.RunAuditRequest{})
		for _, f := range found.GetFindings() {
			if f.GetFixable() {
				list = append(list, cobra.CompletionWithDesc(client.Printable(f.GetId()), client.Printable(f.GetTitle())))
			}
		}
		return err
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}
