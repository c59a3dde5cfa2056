package audit

import (
	"strconv"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// account is a line of /etc/passwd.
type account struct {
	name     string
	uid, gid int
}

// accounts is what /etc/passwd and /etc/group say.
type accounts struct {
	users  []account
	groups map[string]int
}

// readAccounts reads the files and does not ask the C library: only local system users matter
// here.
func readAccounts(system System) (accounts, error) {
	passwd, err := system.ReadFile("/etc/passwd")
	if err != nil {
		return accounts{}, err
	}
	group, err := system.ReadFile("/etc/group")
	if err != nil {
		return accounts{}, err
	}
	return parseAccounts(string(passwd), string(group))
}

func parseAccounts(passwd, group string) (accounts, error) {
	a := accounts{groups: map[string]int{}}
	for line := range strings.Lines(passwd) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) == 1 && fields[0] == "" {
			continue
		}
		if len(fields) < 4 {
			return accounts{}, reason.Errorf("read /etc/passwd: the line %q has too few fields", printable(strings.TrimSpace(line)))
		}
		uid, err := strconv.Atoi(fields[2])
		if err != nil {
			return accounts{}, reason.Errorf("read /etc/passwd: the user number of %q: %w", printable(fields[0]), err)
		}
		gid, err := strconv.Atoi(fields[3])
		if err != nil {
			return accounts{}, reason.Errorf("read /etc/passwd: the group number of %q: %w", printable(fields[0]), err)
		}
		a.users = append(a.users, account{fields[0], uid, gid})
	}
	for line := range strings.Lines(group) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) < 3 {
			continue
		}
		if gid, err := strconv.Atoi(fields[2]); err == nil {
			a.groups[fields[0]] = gid
		}
	}
	if len(a.users) == 0 {
		return accounts{}, reason.Errorf("read /etc/passwd: it lists no user")
	}
	return a, nil
}

// uid returns the number of a user.
func (a accounts) uid(name string) (int, error) {
	for _, user := range a.users {
		if user.name == name {
			return user.uid, nil
		}
	}
	return 0, reason.Errorf("there is no user %s", name)
}

// gid returns the number of a group.
func (a accounts) gid(name string) (int, error) {
	if gid, ok := a.groups[name]; ok {
		return gid, nil
	}
	return 0, reason.Errorf("there is no group %s", name)
}

// userName returns the name of a number, or the number.
func (a accounts) userName(uid int) string {
	for _, user := range a.users {
		if user.uid == uid {
			return user.name
		}
	}
	return strconv.Itoa(uid)
}

// groupName returns the name of a number, or the number.
func (a accounts) groupName(gid int) string {
	for name, number := range a.groups {
		if number == gid {
			return name
		}
	}
	return strconv.Itoa(gid)
}
