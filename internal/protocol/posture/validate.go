package posture

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// The limits of a Posture.
const (
	// MaxApps is the number of pairings a Base holds (docs/protocol.md).
	MaxApps = 32
	// MaxSSHKeys is plenty for the people who look at one machine, and keeps a
	// document small.
	MaxSSHKeys = 16
	// MinLease and MaxLease bound an exception: shorter is of no use, longer is
	// no longer an exception.
	MinLease = 5 * time.Minute
	MaxLease = 7 * 24 * time.Hour
	// MinTries leaves room for a typing error and an agent that offers a wrong
	// key first; MaxTries is where guessing stops being slow.
	MinTries = 3
	MaxTries = 20
	// MinBanWindow to MaxBanWindow is the time over which failures are counted.
	MinBanWindow = time.Minute
	MaxBanWindow = 24 * time.Hour
	// MinBan to MaxBan is the length of a ban. None is for ever, or a wrong one
	// would be.
	MinBan = time.Minute
	MaxBan = 7 * 24 * time.Hour
)

// FieldError says which field of a posture is wrong, and what is allowed there.
type FieldError struct {
	// Field is its path in posture.proto, for example
	// "extra_endpoints[0].lease.seconds".
	Field string
	// Problem says what is there, or what is wrong with it.
	Problem string
	// Allowed says what may be there; it may be empty.
	Allowed string
}

func (e *FieldError) Error() string {
	if e.Allowed == "" {
		return fmt.Sprintf("posture field %s %s", e.Field, e.Problem)
	}
	return fmt.Sprintf("posture field %s %s; allowed: %s", e.Field, e.Problem, e.Allowed)
}

// Validate returns nil, or one FieldError for each wrong field, joined. It looks
// at the content alone; what a document may change is decided by its chain.
func (p Posture) Validate() error {
	var v validation
	if err := noiseconn.CheckName(p.NodeName); err != nil {
		v.add("node_name", "is not a name: "+reason.Of(err), "")
	}
	v.apps(p.Apps)
	v.bans(p.Bans)
	v.sshKeys(p.SSHKeys)
	if p.SSH != nil {
		v.lease("ssh", *p.SSH)
		if p.SSH.UntilClosed {
			v.add("ssh.until_closed", "is set, but SSH always ends by itself", "a time of at most 7 days")
		}
		if len(p.SSHKeys) == 0 {
			v.add("ssh", "is on, but there is no key that could log in", "add a key to ssh_keys first")
		}
	}
	v.extras(p.Extras)
	v.egress(p.Egress)
	if p.OldestVersion != "" && !release.IsVersion(p.OldestVersion) {
		v.add("oldest_version", fmt.Sprintf("is %q", p.OldestVersion), "a version of the software, as bitbox-app update --status shows it")
	}
	return errors.Join(v.errs...)
}

// validation collects what is wrong.
type validation struct{ errs []error }

func (v *validation) add(field, problem, allowed string) {
	v.errs = append(v.errs, &FieldError{Field: field, Problem: problem, Allowed: allowed})
}

func (v *validation) count(field string, n, most int) {
	if n > most {
		v.add(field, fmt.Sprintf("has %d entries", n), fmt.Sprintf("at most %d", most))
	}
}

func (v *validation) apps(apps []App) {
	v.count("apps", len(apps), MaxApps)
	keys, ids := map[SigningKey]bool{}, map[string]bool{}
	for i, app := range apps {
		field := fmt.Sprintf("apps[%d].", i)
		if app.SigningKey == (SigningKey{}) {
			v.add(field+"signing_key", "is empty", "32 bytes")
		}
		if keys[app.SigningKey] {
			v.add(field+"signing_key", "is there twice", "each App once")
		}
		if ids[app.ID] {
			v.add(field+"app_id", "is there twice", "each App once")
		}
		keys[app.SigningKey], ids[app.ID] = true, true
		if err := noiseconn.CheckName(app.Name); err != nil {
			v.add(field+"name", "is not a name: "+reason.Of(err), "")
		}
		if len(app.ID) != 16 || strings.Trim(app.ID, "0123456789abcdef") != "" {
			v.add(field+"app_id", fmt.Sprintf("is %q", app.ID), "16 hexadecimal digits in lower case")
		}
		if app.Role < basev1.Role_ROLE_VIEWER || app.Role > basev1.Role_ROLE_OWNER {
			v.add(field+"role", fmt.Sprintf("is %d", app.Role), "1 (viewer), 2 (operator), 3 (owner)")
		}
	}
}

func (v *validation) bans(b BanPolicy) {
	if b.MaxTries < MinTries || b.MaxTries > MaxTries {
		v.add("bans.max_tries", fmt.Sprintf("is %d", b.MaxTries), fmt.Sprintf("%d to %d", MinTries, MaxTries))
	}
	v.seconds("bans.window_seconds", b.Window, MinBanWindow, MaxBanWindow)
	v.seconds("bans.ban_seconds", b.BanTime, MinBan, MaxBan)
}

func (v *validation) seconds(field string, d, least, most time.Duration) {
	if d < least || d > most || d%time.Second != 0 {
		v.add(field, fmt.Sprintf("is %s", strconv.FormatFloat(d.Seconds(), 'f', -1, 64)), fmt.Sprintf("%d to %d (%s to %s)",
			int64(least.Seconds()), int64(most.Seconds()), durationWords(least), durationWords(most)))
	}
}

func (v *validation) lease(field string, l Lease) {
	switch {
	case !l.UntilClosed:
		v.seconds(field+".seconds", l.Length, MinLease, MaxLease)
	case l.Length != 0:
		v.add(field+".seconds", "is set beside until_closed", "one of the two")
	}
	if l.GrantedIn == 0 {
		v.add(field+".granted_in", "is 0, but the factory posture grants no lease", "the number of a revision")
	}
}

func (v *validation) sshKeys(keys []sshkey.Key) {
	v.count("ssh_keys", len(keys), MaxSSHKeys)
	seen := map[string]bool{}
	for i, key := range keys {
		field := fmt.Sprintf("ssh_keys[%d]", i)
		canonical, err := sshkey.Parse(key.Line)
		switch {
		case err != nil:
			v.add(field, "cannot be accepted: "+reason.Of(err), "")
		case canonical != key:
			v.add(field, "is not written in the one way that is accepted", canonical.Line)
		case seen[key.Fingerprint]:
			v.add(field, "is there twice: "+key.Fingerprint, "each key once")
		}
		seen[key.Fingerprint] = true
	}
}

func (v *validation) extras(extras []ExtraEndpoint) {
	kinds := map[Kind]bool{}
	shared := 0
	for i, extra := range extras {
		field := fmt.Sprintf("extra_endpoints[%d]", i)
		if _, known := extraOf(extra.Kind); !known {
			v.add(field+".kind", fmt.Sprintf("is %q", extra.Kind), kindList())
		}
		if kinds[extra.Kind] {
			v.add(field+".kind", fmt.Sprintf("is %q a second time", extra.Kind), "each kind once")
		}
		kinds[extra.Kind] = true
		if !extra.OwnPort {
			shared++
		}
		v.lease(field+".lease", extra.Lease)
		if err := extra.From.check(); err != nil {
			v.add(field+".from", reason.Of(err), "")
		}
		if len(extra.From) > 0 && !extra.OwnPort {
			v.add(field+".from", fmt.Sprintf("limits an API that shares port %d, which is open to every network", EntryPort), "a port of its own")
		}
	}
	if shared > 1 {
		v.add("extra_endpoints", fmt.Sprintf("has %d that share port %d", shared, EntryPort), "one; others take a port of their own")
	}
}

func (v *validation) egress(services []Service) {
	seen := map[Service]bool{}
	for i, service := range services {
		field := fmt.Sprintf("egress[%d]", i)
		if !slices.Contains(Services, service) {
			v.add(field, fmt.Sprintf("is %q", service), serviceList())
		}
		if seen[service] {
			v.add(field, fmt.Sprintf("is %q a second time", service), "each service once")
		}
		seen[service] = true
	}
}

// extraOf finds the extra API of a kind.
func extraOf(kind Kind) (Extra, bool) {
	i := slices.IndexFunc(Extras, func(e Extra) bool { return e.Kind == kind })
	if i < 0 {
		return Extra{}, false
	}
	return Extras[i], true
}

func kindList() string {
	names := make([]string, len(Extras))
	for i, extra := range Extras {
		names[i] = string(extra.Kind)
	}
	return strings.Join(names, ", ")
}

func serviceList() string {
	names := make([]string, len(Services))
	for i, service := range Services {
		names[i] = string(service)
	}
	return strings.Join(names, ", ")
}

// durationWords writes d as a person would say it: "2 hours", "1 day 3 hours",
// "90 seconds". Parts below a second are left out.
func durationWords(d time.Duration) string {
	if d < time.Second {
		return "less than a second"
	}
	if d < 2*time.Minute && d%time.Minute != 0 {
		return amount(d/time.Second, "second")
	}
	var parts []string
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if n := d / unit.length; n > 0 {
			parts = append(parts, amount(n, unit.name))
			d -= n * unit.length
		}
	}
	return strings.Join(parts, " ")
}

func amount(n time.Duration, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", n, unit)
}
