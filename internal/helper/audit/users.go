package audit

import (
	"context"
	"regexp"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// checkUsers looks for ways to log in without a key.
func checkUsers(_ context.Context, system System, _ Expectation) ([]difference, error) {
	passwd, err := system.ReadFile("/etc/passwd")
	if err != nil {
		return nil, err
	}
	shadow, err := system.ReadFile("/etc/shadow")
	if err != nil {
		return nil, err
	}
	accounts, err := parseAccounts(string(passwd), "")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, p := range passwords(string(passwd), string(shadow)) {
		found = append(found, p.user+" "+p.what)
	}
	var roots []string
	for _, user := range accounts.users {
		if user.uid == 0 && user.name != "root" {
			roots = append(roots, user.name)
		}
	}
	var differences []difference
	if found != nil {
		differences = append(differences, difference{id: idPassword, found: found})
	}
	if roots != nil {
		differences = append(differences, difference{id: idSecondRoot, found: roots})
	}
	return differences, nil
}

type password struct{ user, what string }

// passwords returns the users who can log in with a password, or without one. In both files the
// second field is the password: "x" in passwd points to shadow, and a password there that begins
// with "!" or "*" matches none (shadow(5)).
func passwords(passwd, shadow string) []password {
	var list []password
	for line := range strings.Lines(passwd) {
		if name, hash, ok := credential(line); ok && hash != "x" && !locked(hash) {
			list = append(list, password{name, "has a password in /etc/passwd, or an empty one"})
		}
	}
	for line := range strings.Lines(shadow) {
		name, hash, ok := credential(line)
		switch {
		case !ok || locked(hash):
		case hash == "":
			list = append(list, password{name, "needs no password"})
		default:
			list = append(list, password{name, "has a password"})
		}
	}
	return list
}

func credential(line string) (name, hash string, ok bool) {
	fields := strings.Split(strings.TrimSpace(line), ":")
	if len(fields) < 2 {
		return "", "", false
	}
	return fields[0], fields[1], true
}

func locked(hash string) bool { return strings.HasPrefix(hash, "!") || strings.HasPrefix(hash, "*") }

// userName is what useradd(8) accepts; nothing else becomes an argument.
var userName = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)

// removePasswords replaces each password by one that matches nothing. It does not lock the user:
// without PAM a "!" in front would lock the user out for keys as well.
func removePasswords(ctx context.Context, system System) error {
	passwd, err := system.ReadFile("/etc/passwd")
	if err != nil {
		return err
	}
	shadow, err := system.ReadFile("/etc/shadow")
	if err != nil {
		return err
	}
	for _, p := range passwords(string(passwd), string(shadow)) {
		if !userName.MatchString(p.user) {
			return reason.Errorf("remove the password of %q: this is not an ordinary user name; edit /etc/shadow by hand", printable(p.user))
		}
		if _, err := ask(ctx, system, usermod, "-p", "*", p.user); err != nil {
			return err
		}
	}
	return nil
}
