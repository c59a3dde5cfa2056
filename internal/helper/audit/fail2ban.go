package audit

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

var neverBanned = []string{"127.0.0.0/8", "::1"}

// setting is one setting to ask for, with the values it should have.
type setting struct {
	jail, name string
	want       []string
}

// jailSettings decide whether and for how long an address is banned.
func jailSettings(c bruteforce.Config) []setting {
	var list []setting
	for _, jail := range bruteforce.Jails {
		list = append(list,
			setting{jail, "maxretry", []string{strconv.Itoa(int(c.MaxTries))}},
			setting{jail, "findtime", []string{strconv.Itoa(int(c.Window / time.Second))}},
			setting{jail, "bantime", []string{strconv.Itoa(int(c.BanTime / time.Second))}},
			setting{jail, "ignoreip", neverBanned},
			setting{jail, "ignoreregex", nil},
			setting{jail, "journalmatch", []string{c.JournalMatch(jail)}},
			setting{jail, "actions", []string{bruteforce.Actions[jail]}},
			// fail2ban expands a pattern in its own way; only its presence is checked.
			setting{jail, "failregex", nil},
		)
	}
	return list
}

// checkFail2ban asks the running fail2ban for its jails and their limits. They can be changed
// while it runs, and no file shows that. All questions go into one conversation: starting
// fail2ban-client costs more than all answers together.
func checkFail2ban(ctx context.Context, system System, want Expectation) ([]difference, error) {
	settings := jailSettings(generation.BansFor(want.Posture))
	questions := []string{"status"}
	for _, s := range settings {
		questions = append(questions, "get "+s.jail+" "+s.name)
	}
	out, err := system.Run(ctx, strings.Join(questions, "\n")+"\nexit\n", fail2ban, "-i")
	if err != nil {
		return nil, err
	}
	answers := strings.Split(out.Stdout, fail2banPrompt)
	// The title stands before the first prompt; nothing follows the last one.
	if len(answers) != len(questions)+2 || strings.TrimSpace(answers[1]) == "" {
		return []difference{{id: idBansSilent, found: []string{strings.TrimSpace(out.Stderr)}}}, nil
	}
	jails, err := parseJails(answers[1])
	if err != nil {
		return nil, err
	}
	var found []string
	for _, jail := range jails {
		if !slices.Contains(bruteforce.Jails, jail) {
			found = append(found, fmt.Sprintf("the jail %s is not ours", jail))
		}
	}
	for _, jail := range bruteforce.Jails {
		if !slices.Contains(jails, jail) {
			found = append(found, fmt.Sprintf("the jail %s is missing", jail))
		}
	}
	for i, s := range settings {
		if !slices.Contains(jails, s.jail) {
			continue
		}
		got := parseValues(answers[i+2])
		switch {
		case s.name == "failregex" && len(got) == 0:
			found = append(found, s.jail+": it has no pattern left, so nothing counts")
		case s.name != "failregex" && !slices.Equal(got, s.want):
			found = append(found, fmt.Sprintf("%s: %s is %q, not %q", s.jail, s.name, strings.Join(got, ", "), strings.Join(s.want, ", ")))
		}
	}
	if found == nil {
		return nil, nil
	}
	return []difference{{id: idBansSettings, found: found}}, nil
}

// fail2banPrompt is printed before each question.
const fail2banPrompt = "fail2ban> "

// parseJails reads the list in the answer to "status".
func parseJails(answer string) ([]string, error) {
	for line := range strings.Lines(answer) {
		label, list, found := strings.Cut(line, ":")
		if found && strings.Trim(label, " |`-") == "Jail list" {
			return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' }), nil
		}
	}
	return nil, reason.Errorf("read fail2ban's answer to \"status\": it has no list of jails: %q", printable(answer))
}

// parseValues reads the answer of fail2ban-client about a setting: the value, or a sentence with
// the values below it,
//
//	These IP addresses/networks are ignored:
//	|- 127.0.0.0/8
//	`- ::1
//
// or a sentence alone if there is none.
func parseValues(output string) []string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	if len(lines) == 1 {
		if value := strings.TrimSpace(lines[0]); value != "" && !strings.Contains(value, " ") {
			return []string{value}
		}
		return nil
	}
	var values []string
	for _, line := range lines[1:] {
		values = append(values, strings.TrimSpace(strings.TrimLeft(line, "|`- ")))
	}
	return values
}
