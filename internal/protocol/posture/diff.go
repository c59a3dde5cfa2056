package posture

import (
	"fmt"
	"slices"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

// Change is one difference between two Effectives.
type Change struct {
	// Field names what changes, for programs: "ssh", "ssh.keys",
	// "ssh.lease", "endpoint", "endpoint.lease", "endpoint.from", "bans.max_tries", "bans.window",
	// "bans.ban_time", "pairing", "egress", "app", "app.role", "app.name",
	// "node_name", "known_ssh_key", "lockdown", "oldest_version".
	Field string `json:"field"`
	// Subject says which one where there are several: the kind, the fingerprint,
	// the key or the service.
	Subject string `json:"subject,omitempty"`
	// Before and After are the values, empty for what is not there.
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
	// Opens: after it somebody may reach, enter or leave by what they could not
	// before, or for longer.
	Opens bool `json:"opens"`
	// Kind of change and Args make its sentence. They are the truth, in
	// every language.
	Kind ChangeKind `json:"-"`
	Args []any      `json:"-"` // each as in Word
	// Text says it to a person before it happens, Done when it has, and Told as news of
	// what somebody did, in English.
	Text string `json:"text"`
	Done string `json:"-"`
	Told string `json:"-"`
}

// Diff says what is different in after, openings first. It says nothing when the
// two are equal, and has an opening exactly when after is not NoMoreOpen than
// before.
func Diff(before, after Effective) []Change {
	d := &difference{before: before, after: after}
	d.lockdown()
	d.endpoints()
	d.ssh()
	d.knownKeys()
	d.apps()
	d.pairing()
	d.egress()
	d.bans()
	d.software()
	if before.NodeName != after.NodeName {
		d.add(Change{Field: "node_name", Before: before.NodeName, After: after.NodeName},
			"base.name", after.NodeName, before.NodeName)
	}
	slices.SortStableFunc(d.changes, func(a, b Change) int {
		switch {
		case a.Opens == b.Opens:
			return 0
		case a.Opens:
			return -1
		default:
			return 1
		}
	})
	return d.changes
}

// difference collects changes.
type difference struct {
	before, after Effective
	changes       []Change
}

// add completes a change with its sentence.
func (d *difference) add(c Change, kind ChangeKind, args ...any) {
	c.Kind, c.Args = kind, args
	d.changes = append(d.changes, c.Said())
}

func (d *difference) lockdown() {
	if d.before.Lockdown == d.after.Lockdown {
		return
	}
	c := Change{Field: "lockdown", Before: onOff(d.before.Lockdown), After: onOff(d.after.Lockdown)}
	if d.after.Lockdown {
		d.add(c, "lockdown.on")
	} else {
		d.add(c, "lockdown.off")
	}
}

func (d *difference) endpoints() {
	for _, e := range d.after.Endpoints {
		c := Change{Field: "endpoint", Subject: string(e.Kind), After: Word(e.place())}
		was, found := findEndpoint(d.before.Endpoints, e)
		switch {
		case !found:
			c.Opens = true
			switch {
			case e.UntilClosed && len(e.From) > 0:
				d.add(c, "endpoint.open.good.from", e.Kind, e.place(), e.From)
			case e.UntilClosed:
				d.add(c, "endpoint.open.good", e.Kind, e.place())
			case len(e.From) > 0:
				d.add(c, "endpoint.open.from", e.Kind, e.Remaining, e.place(), e.From)
			default:
				d.add(c, "endpoint.open", e.Kind, e.Remaining, e.place())
			}
			continue
		case !was.noLonger(e) || !e.noLonger(was):
			d.lease(c, "endpoint", was.span(), e.span(), !e.noLonger(was), e.Kind, e.place())
		}
		if !slices.Equal(was.From, e.From) {
			c.Field, c.Before, c.After, c.Opens = "endpoint.from", Word(was.From), Word(e.From), !e.From.Within(was.From)
			d.add(c, "endpoint.from", e.Kind, e.place(), e.From, was.From)
		}
	}
	for _, e := range d.before.Endpoints {
		if _, stays := findEndpoint(d.after.Endpoints, e); !stays {
			d.add(Change{Field: "endpoint", Subject: string(e.Kind), Before: Word(e.place())},
				"endpoint.close", e.Kind, e.place())
		}
	}
}

// Place is where an endpoint is: beside the encrypted channel if it shares its port.
type Place struct {
	Port   uint16
	Shared bool
}

func (e Endpoint) place() Place { return Place{e.Port, e.Shared} }

// ForGood is the time of what is open until somebody closes it.
type ForGood struct{}

// span is a time.Duration, or ForGood.
func (e Endpoint) span() any {
	if e.UntilClosed {
		return ForGood{}
	}
	return e.Remaining
}

// lease tells that one is longer or shorter.
func (d *difference) lease(c Change, kind ChangeKind, before, after any, longer bool, args ...any) {
	c.Field += ".lease"
	c.Before, c.After, c.Opens = Word(before), Word(after), longer
	length := ChangeKind(".shorter")
	if c.Opens {
		length = ".longer"
	}
	d.add(c, kind+length, append([]any{after, before}, args...)...)
}

func (d *difference) ssh() {
	before, after := d.before.SSH, d.after.SSH
	c := Change{Field: "ssh", Before: onOff(before != nil), After: onOff(after != nil)}
	switch {
	case before == nil && after == nil:
	case before == nil:
		c.Opens = true
		d.add(c, "ssh.on", after.Remaining, after.Keys)
	case after == nil:
		d.add(c, "ssh.off")
	default:
		if before.Remaining != after.Remaining {
			d.lease(Change{Field: "ssh"}, "ssh", before.Remaining, after.Remaining, after.Remaining > before.Remaining)
		}
		for _, key := range after.Keys {
			if !hasKey(before.Keys, key) {
				d.add(Change{Field: "ssh.keys", Subject: key.Fingerprint, After: key.Line, Opens: true},
					"ssh.key.open", []sshkey.Key{key})
			}
		}
		for _, key := range before.Keys {
			if !hasKey(after.Keys, key) {
				d.add(Change{Field: "ssh.keys", Subject: key.Fingerprint, Before: key.Line},
					"ssh.key.close", []sshkey.Key{key})
			}
		}
	}
}

// knownKeys tells of keys that are kept, whether or not SSH is on.
func (d *difference) knownKeys() {
	for _, key := range d.after.KnownSSHKeys {
		i := slices.IndexFunc(d.before.KnownSSHKeys, func(k sshkey.Key) bool { return k.Fingerprint == key.Fingerprint })
		c := Change{Field: "known_ssh_key", Subject: key.Fingerprint, After: key.Line}
		switch {
		case i < 0:
			d.add(c, "key.add", key)
		case d.before.KnownSSHKeys[i].Comment != key.Comment:
			c.Before = d.before.KnownSSHKeys[i].Line
			d.add(c, "key.name", key, d.before.KnownSSHKeys[i].Comment)
		}
	}
	for _, key := range d.before.KnownSSHKeys {
		if !hasKey(d.after.KnownSSHKeys, key) {
			d.add(Change{Field: "known_ssh_key", Subject: key.Fingerprint, Before: key.Line},
				"key.remove", key)
		}
	}
}

func (d *difference) apps() {
	for _, app := range d.after.Apps {
		was, found := findApp(d.before.Apps, app.SigningKey)
		c := Change{Field: "app", Subject: app.SigningKey.String(), After: app.Role.Name()}
		if !found {
			c.Opens = true
			d.add(c, "app.pair", app.Name, app.Role)
			continue
		}
		if was.Role != app.Role {
			role := c
			role.Field, role.Before, role.Opens = "app.role", was.Role.Name(), app.Role > was.Role
			d.add(role, "app.role", app.Name, app.Role, was.Role)
		}
		if was.Name != app.Name {
			name := c
			name.Field, name.Before, name.After = "app.name", was.Name, app.Name
			d.add(name, "app.name", was.Name, app.Name)
		}
	}
	for _, app := range d.before.Apps {
		if _, stays := findApp(d.after.Apps, app.SigningKey); !stays {
			d.add(Change{Field: "app", Subject: app.SigningKey.String(), Before: app.Role.Name()},
				"app.cut", app.Name)
		}
	}
}

func (d *difference) pairing() {
	before, after := d.before.PairingClosed, d.after.PairingClosed
	if before == after {
		return
	}
	c := Change{Field: "pairing", Before: openClosed(before), After: openClosed(after), Opens: before}
	if after {
		d.add(c, "pairing.close")
	} else {
		d.add(c, "pairing.open")
	}
}

func (d *difference) egress() {
	for _, service := range d.after.Egress {
		if !slices.Contains(d.before.Egress, service) {
			d.add(Change{Field: "egress", Subject: string(service), After: "allowed", Opens: true},
				ChangeKind("egress.open."+service))
		}
	}
	for _, service := range d.before.Egress {
		if !slices.Contains(d.after.Egress, service) {
			d.add(Change{Field: "egress", Subject: string(service), Before: "allowed"},
				ChangeKind("egress.close."+service))
		}
	}
}

func (d *difference) bans() {
	before, after := d.before.Bans, d.after.Bans
	if before.MaxTries != after.MaxTries {
		d.add(Change{
			Field: "bans.max_tries", Before: fmt.Sprint(before.MaxTries), After: fmt.Sprint(after.MaxTries),
			Opens: after.MaxTries > before.MaxTries,
		}, "bans.tries", after.MaxTries, before.MaxTries)
	}
	if before.Window != after.Window {
		d.add(Change{
			Field: "bans.window", Before: durationWords(before.Window), After: durationWords(after.Window),
			Opens: after.Window < before.Window,
		}, "bans.window", after.Window, before.Window)
	}
	if before.BanTime != after.BanTime {
		d.add(Change{
			Field: "bans.ban_time", Before: durationWords(before.BanTime), After: durationWords(after.BanTime),
			Opens: after.BanTime < before.BanTime,
		}, "bans.length", after.BanTime, before.BanTime)
	}
}

func (d *difference) software() {
	before, after := d.before.OldestVersion, d.after.OldestVersion
	if before == after {
		return
	}
	c := Change{Field: "oldest_version", Before: before, After: after, Opens: !noOlder(after, before)}
	if after == "" {
		d.add(c, "version.any")
	} else {
		d.add(c, "version.oldest", after)
	}
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func openClosed(closed bool) string {
	if closed {
		return "closed"
	}
	return "open"
}
