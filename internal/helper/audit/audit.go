// Package audit checks whether the live system is as closed as the posture in force says, and
// reports where it is not.
//
// It asks the kernel and the servers themselves (which sockets listen, which packet filter is
// loaded, which settings sshd would use) instead of reading the files that were written for
// them. Each difference is a [Finding] with a stable id, and many can be repaired by that id
// ([Fix]). A check that cannot get its answer is a finding too, so an empty result means that
// every check was done and found nothing.
//
// A check is a pure function of the answers of a [System] and of an [Expectation]. One table
// has the ids, their words and their fixes (kinds.go), another the checks (checks, below).
// Each check has its own file.
//
// Root can lie to the audit. It finds mistakes, leftovers, and intruders who do not control
// the kernel.
package audit

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Severity says how urgent a finding is.
type Severity int

// The severities, in rising order.
const (
	// Info is worth knowing; nothing has to be done.
	Info Severity = iota + 1
	// Warning weakens a protection or takes a service away.
	Warning
	// Critical opens the Base, or may be the trace of an intruder.
	Critical
)

// String returns "info", "warning" or "critical".
func (s Severity) String() string {
	switch s {
	case Info:
		return "info"
	case Warning:
		return "warning"
	case Critical:
		return "critical"
	}
	return fmt.Sprintf("severity %d", int(s))
}

// MarshalText gives JSON the word.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is one difference between what should be in force and what is. There is at most one
// finding with each id; Found lists where it was found, one place per line.
type Finding struct {
	// ID is stable: it is documented in docs/audit.md and never gets another
	// meaning.
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	Title    string   `json:"title"`
	Expected string   `json:"expected"`
	Found    string   `json:"found"`
	// Why it matters.
	Why string `json:"why"`
	// Fix says in plain words what the repair does, or what a person has to do.
	Fix     string `json:"fix"`
	Fixable bool   `json:"fixable"`
	// Err is why a check got no answer, with the texts of libraries; nil if it got one.
	Err error `json:"-"`
}

// Expectation is what should be true.
type Expectation struct {
	// Posture is the posture in force.
	Posture posture.Effective
	// Generation is the number of the generation of configuration that should be in force
	// (internal/helper/generation). 0 means that it is not known; then any is accepted.
	Generation uint64
}

// difference is what a check returns: the id of a kind, and the details of this case.
type difference struct {
	id string
	// expected replaces the kind's words; empty keeps them.
	expected string
	found    []string
	// more is the number of lines that were found but not kept.
	more int
	err  error // why a check got no answer, for the journal
}

// add keeps a line that was found, up to maxFound lines.
func (d *difference) add(line string) {
	if len(d.found) < maxFound {
		d.found = append(d.found, line)
	} else {
		d.more++
	}
}

// check is one question to the system.
type check struct {
	name string
	// limit is how long it may take.
	limit time.Duration
	run   func(context.Context, System, Expectation) ([]difference, error)
}

// checks are all checks. Their limits are far above what they need, for a small and busy machine.
var checks = []check{
	{"sockets", 10 * time.Second, checkSockets},
	{"firewall", 10 * time.Second, checkFirewall},
	{"foreign-tables", 10 * time.Second, checkForeignTables},
	{"legacy-rules", 10 * time.Second, checkLegacyRules},
	{"generation", 10 * time.Second, checkGeneration},
	{"nginx", 10 * time.Second, checkNGINX},
	{"ssh", 10 * time.Second, checkSSH},
	{"masks", 10 * time.Second, checkMasks},
	{"fail2ban", 60 * time.Second, checkFail2ban},
	{"units", 10 * time.Second, checkUnits},
	{"files", 10 * time.Second, checkFiles},
	{"loose-files", 60 * time.Second, checkLooseFiles},
	{"users", 10 * time.Second, checkUsers},
	{"updates", 60 * time.Second, checkUpdates},
	{"debian", 10 * time.Second, checkDebian},
	{"provisioning", 10 * time.Second, checkProvisioning},
	{"disks", 10 * time.Second, checkDisks},
	{"kernel", 10 * time.Second, checkKernel},
	{"image", 10 * time.Second, checkImage},
	{"endpoints", time.Second, checkEndpoints},
}

// Run does every check and returns the differences, the most severe first. An empty result means
// that every check was done and found nothing.
func Run(ctx context.Context, system System, want Expectation) []Finding {
	var findings []Finding
	for _, c := range checks {
		findings = append(findings, c.ask(ctx, system, want)...)
	}
	slices.SortStableFunc(findings, func(a, b Finding) int { return int(b.Severity - a.Severity) })
	return findings
}

// ask runs one check. If the check cannot get its answer, that becomes a finding.
func (c check) ask(ctx context.Context, system System, want Expectation) []Finding {
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	differences, err := c.run(ctx, system, want)
	if err != nil {
		differences = append(differences, difference{id: unchecked + c.name, found: []string{reason.Of(err)}, err: err})
	}
	var findings []Finding
	for _, d := range differences {
		findings = append(findings, d.finding())
	}
	return findings
}

// maxFound bounds the lines of Found, so that a person can read the report and a socket can carry
// it.
const maxFound = 20

// maxFoundLine bounds each line, in bytes.
const maxFoundLine = 400

func (d difference) finding() Finding {
	k, known := kindOf(d.id)
	if !known {
		// A test makes sure that no check gets here.
		k = kind{id: d.id, severity: Critical, title: "An unknown finding"}
	}
	expected := k.expected
	if d.expected != "" {
		expected = d.expected
	}
	lines := make([]string, 0, min(len(d.found), maxFound+1))
	kept := d.found[:min(len(d.found), maxFound)]
	for _, line := range kept {
		lines = append(lines, printable(line))
	}
	if more := len(d.found) - len(kept) + d.more; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return Finding{
		ID: k.id, Severity: k.severity, Title: k.title, Expected: expected,
		Found: strings.Join(lines, "\n"), Why: k.why, Fix: k.fix, Fixable: k.fixable(), Err: d.err,
	}
}

// printable makes a line safe to print. Somebody else may have chosen the names of files and
// users in it, and such names can contain terminal control sequences.
func printable(line string) string {
	if len(line) > maxFoundLine {
		line = line[:maxFoundLine] + "…"
	}
	return strings.Map(func(r rune) rune {
		// Control characters, invisible characters and those that change the direction of text
		// are replaced.
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(line, "\uFFFD"))
}

// Errors of Fix.
var (
	// ErrUnknown is returned for an unknown id.
	ErrUnknown = reason.New("there is no such finding; `bitbox-base audit` lists them with their ids")
	// ErrByHand is returned for a finding that only a person can repair.
	ErrByHand = reason.New("this one has to be fixed by hand")
	// ErrNothing is returned if there is nothing to repair.
	ErrNothing = reason.New("there is nothing to fix: the audit no longer finds this")
	// ErrStill is returned if the repair was done and did not help.
	ErrStill = reason.New("the fix was applied, and the finding is still there")
)

// Fix repairs the finding with this id and checks whether that helped. The id only selects a row
// of the table. The repair looks for the files or units itself, so nothing in a request becomes
// an argument of a program.
func Fix(ctx context.Context, system System, want Expectation, id string) error {
	err := fix(ctx, system, want, id)
	if err != nil {
		return reason.Errorf("fix the finding %q: %w", printable(id), err)
	}
	return nil
}

func fix(ctx context.Context, system System, want Expectation, id string) error {
	k, known := kindOf(id)
	if !known {
		return ErrUnknown
	}
	if !k.fixable() {
		return reason.Errorf("%w: %s", ErrByHand, k.fix)
	}
	c := checkOf(k.check)
	if !c.finds(ctx, system, want, id) {
		return ErrNothing
	}
	if err := repair(ctx, system, want, k); err != nil {
		return err
	}
	return await(ctx, settleTime, func() error {
		if c.finds(ctx, system, want, id) {
			return ErrStill
		}
		return nil
	})
}

// repairTime is how long a repair may take; a restart of fail2ban is the slowest.
const repairTime = time.Minute

// settleTime is how long a server may take to become ready after its start.
const settleTime = 10 * time.Second

func repair(ctx context.Context, system System, want Expectation, k kind) error {
	ctx, cancel := context.WithTimeout(ctx, repairTime)
	defer cancel()
	if k.outside != nil {
		_, err := ask(ctx, system, systemctl, "start", repairUnit(k.id))
		return err
	}
	return k.repair(ctx, system, want)
}

// finds tells whether the check finds id, or could not be done.
func (c check) finds(ctx context.Context, system System, want Expectation, id string) bool {
	return slices.ContainsFunc(c.ask(ctx, system, want), func(f Finding) bool { return f.ID == id || f.ID == unchecked+c.name })
}

// await calls ok until it returns nil or the time is over; then it returns the last error.
func await(ctx context.Context, limit time.Duration, ok func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}
