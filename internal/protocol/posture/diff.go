package posture

import (
	"fmt"
	"slices"
	"strings"

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
	// Text says it to a person before it happens, Done when it has, and Told as news of
	// what somebody did.
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
			"The Base {be} named %q instead of %q", after.NodeName, before.NodeName)
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

// add completes a change with its sentence. "{be}" in the format becomes "will be",
// "is now" and, where something was done, "was"; "{is}" is for what is in a state, and
// becomes "will be" and "is now".
func (d *difference) add(c Change, format string, args ...any) {
	say := func(be, is string) string {
		return fmt.Sprintf(strings.NewReplacer("{be}", be, "{is}", is).Replace(format), args...) + "."
	}
	c.Text, c.Done, c.Told = say("will be", "will be"), say("is now", "is now"), say("was", "is now")
	d.changes = append(d.changes, c)
}

func (d *difference) lockdown() {
	if d.before.Lockdown == d.after.Lockdown {
		return
	}
	c := Change{Field: "lockdown", Before: onOff(d.before.Lockdown), After: onOff(d.after.Lockdown)}
	if d.after.Lockdown {
		d.add(c, "The Base {be} locked down: SSH off, extra APIs closed, no pairing from the network")
	} else {
		d.add(c, "The lockdown {be} lifted")
	}
}

func (d *difference) endpoints() {
	where := func(e Endpoint) string {
		if e.Shared {
			return fmt.Sprintf("port %d, beside the encrypted channel", e.Port)
		}
		return fmt.Sprintf("port %d", e.Port)
	}
	for _, e := range d.after.Endpoints {
		c := Change{Field: "endpoint", Subject: string(e.Kind), After: where(e)}
		was, found := findEndpoint(d.before.Endpoints, e)
		switch {
		case !found:
			c.Opens = true
			alone := ""
			if len(e.From) > 0 {
				alone = ", from " + e.From.words() + " alone"
			}
			howLong := durationWords(e.Remaining)
			if e.UntilClosed {
				howLong = ForGood + ","
			}
			d.add(c, "The %s {is} reachable for %s on %s%s", title(e.Kind), howLong, where(e), alone)
			continue
		case !was.noLonger(e) || !e.noLonger(was):
			d.lease(c, title(e.Kind)+" on "+where(e), was.span(), e.span(), !e.noLonger(was))
		}
		if !slices.Equal(was.From, e.From) {
			c.Field, c.Before, c.After, c.Opens = "endpoint.from", was.From.words(), e.From.words(), !e.From.Within(was.From)
			d.add(c, "The %s on %s {is} reachable from %s instead of %s", title(e.Kind), where(e), c.After, c.Before)
		}
	}
	for _, e := range d.before.Endpoints {
		if _, stays := findEndpoint(d.after.Endpoints, e); !stays {
			d.add(Change{Field: "endpoint", Subject: string(e.Kind), Before: where(e)},
				"The %s {be} closed on %s, and its connections ended", title(e.Kind), where(e))
		}
	}
}

// span is "2 hours".
func (e Endpoint) span() string {
	if e.UntilClosed {
		return "for good"
	}
	return durationWords(e.Remaining)
}

// ForGood is for how long something is open that has no end of its own, after "for".
const ForGood = "good, until somebody closes it"

// lease tells that one is longer or shorter.
func (d *difference) lease(c Change, what, before, after string, longer bool) {
	c.Field += ".lease"
	c.Before, c.After, c.Opens = before, after, longer
	length := "shorter"
	if c.Opens {
		length = "longer"
	}
	d.add(c, "The time of the %s {is} %s: %s instead of %s", what, length, c.After, c.Before)
}

func (d *difference) ssh() {
	before, after := d.before.SSH, d.after.SSH
	c := Change{Field: "ssh", Before: onOff(before != nil), After: onOff(after != nil)}
	switch {
	case before == nil && after == nil:
	case before == nil:
		c.Opens = true
		d.add(c, "SSH {be} switched on for %s for %s", durationWords(after.Remaining), keyList(after.Keys))
	case after == nil:
		d.add(c, "SSH {be} switched off, and its sessions ended")
	default:
		if before.Remaining != after.Remaining {
			d.lease(Change{Field: "ssh"}, "SSH access", durationWords(before.Remaining), durationWords(after.Remaining),
				after.Remaining > before.Remaining)
		}
		for _, key := range after.Keys {
			if !hasKey(before.Keys, key) {
				d.add(Change{Field: "ssh.keys", Subject: key.Fingerprint, After: key.Line, Opens: true},
					"SSH {is} open to %s too", keyList([]sshkey.Key{key}))
			}
		}
		for _, key := range before.Keys {
			if !hasKey(after.Keys, key) {
				d.add(Change{Field: "ssh.keys", Subject: key.Fingerprint, Before: key.Line},
					"SSH {be} closed to %s", keyList([]sshkey.Key{key}))
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
			d.add(c, "The SSH key %s {be} added; a key lets somebody in only while SSH is on", keyName(key))
		case d.before.KnownSSHKeys[i].Comment != key.Comment:
			c.Before = d.before.KnownSSHKeys[i].Line
			d.add(c, "The SSH key %s {be} named so instead of '%s'", keyName(key), d.before.KnownSSHKeys[i].Comment)
		}
	}
	for _, key := range d.before.KnownSSHKeys {
		if !hasKey(d.after.KnownSSHKeys, key) {
			d.add(Change{Field: "known_ssh_key", Subject: key.Fingerprint, Before: key.Line},
				"The SSH key %s {be} removed", keyName(key))
		}
	}
}

func (d *difference) apps() {
	for _, app := range d.after.Apps {
		was, found := findApp(d.before.Apps, app.SigningKey)
		c := Change{Field: "app", Subject: app.SigningKey.String(), After: app.Role.Name()}
		if !found {
			c.Opens = true
			d.add(c, "The App '%s' {be} paired as %s", app.Name, app.Role.Name())
			continue
		}
		if was.Role != app.Role {
			role := c
			role.Field, role.Before, role.Opens = "app.role", was.Role.Name(), app.Role > was.Role
			d.add(role, "The App '%s' {is} %s instead of %s", app.Name, app.Role.Name(), was.Role.Name())
		}
		if was.Name != app.Name {
			name := c
			name.Field, name.Before, name.After = "app.name", was.Name, app.Name
			d.add(name, "The App '%s' {be} named '%s'", was.Name, app.Name)
		}
	}
	for _, app := range d.before.Apps {
		if _, stays := findApp(d.after.Apps, app.SigningKey); !stays {
			d.add(Change{Field: "app", Subject: app.SigningKey.String(), Before: app.Role.Name()},
				"The App '%s' {be} cut off", app.Name)
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
		d.add(c, "Pairing from the network {be} closed; the console can still open a window")
	} else {
		d.add(c, "Pairing {is} possible again when an owner opens a window")
	}
}

func (d *difference) egress() {
	for _, service := range d.after.Egress {
		if !slices.Contains(d.before.Egress, service) {
			d.add(Change{Field: "egress", Subject: string(service), After: "allowed", Opens: true},
				"The %s {be} allowed to reach %s", leaving[service][0], leaving[service][1])
		}
	}
	for _, service := range d.before.Egress {
		if !slices.Contains(d.after.Egress, service) {
			d.add(Change{Field: "egress", Subject: string(service), Before: "allowed"},
				"The %s {be} kept from %s", leaving[service][0], leaving[service][1])
		}
	}
}

// leaving says who goes where, for each of Services.
var leaving = map[Service][2]string{
	ServiceBitcoin:       {"Bitcoin node", "the internet"},
	ServiceLightning:     {"Lightning node", "the internet"},
	ServiceTor:           {"service Tor", "the internet"},
	ServiceBitcoinHome:   {"Bitcoin node", "your home: private and link-local addresses"},
	ServiceLightningHome: {"Lightning node", "your home: private and link-local addresses"},
}

func (d *difference) bans() {
	before, after := d.before.Bans, d.after.Bans
	if before.MaxTries != after.MaxTries {
		d.add(Change{
			Field: "bans.max_tries", Before: fmt.Sprint(before.MaxTries), After: fmt.Sprint(after.MaxTries),
			Opens: after.MaxTries > before.MaxTries,
		}, "An address {is} banned after %d failures instead of %d", after.MaxTries, before.MaxTries)
	}
	if before.Window != after.Window {
		d.add(Change{
			Field: "bans.window", Before: durationWords(before.Window), After: durationWords(after.Window),
			Opens: after.Window < before.Window,
		}, "The time over which failures are counted {is} %s instead of %s", durationWords(after.Window), durationWords(before.Window))
	}
	if before.BanTime != after.BanTime {
		d.add(Change{
			Field: "bans.ban_time", Before: durationWords(before.BanTime), After: durationWords(after.BanTime),
			Opens: after.BanTime < before.BanTime,
		}, "A ban {is} %s long instead of %s", durationWords(after.BanTime), durationWords(before.BanTime))
	}
}

func (d *difference) software() {
	before, after := d.before.OldestVersion, d.after.OldestVersion
	if before == after {
		return
	}
	c := Change{Field: "oldest_version", Before: before, After: after, Opens: !noOlder(after, before)}
	if after == "" {
		d.add(c, "The Base {is} free to go back to any version of its software")
	} else {
		d.add(c, "The Base {be} kept from running any version of its software older than %s", after)
	}
}

func title(kind Kind) string {
	if extra, known := extraOf(kind); known {
		return extra.Title
	}
	return "encrypted channel"
}

// keyName is "'laptop' (SHA256:…)", or the fingerprint alone.
func keyName(key sshkey.Key) string {
	if key.Comment == "" {
		return key.Fingerprint
	}
	return fmt.Sprintf("'%s' (%s)", key.Comment, key.Fingerprint)
}

func keyList(keys []sshkey.Key) string {
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = keyName(key)
	}
	if len(names) == 1 {
		return "the key " + names[0]
	}
	return "the keys " + strings.Join(names, ", ")
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
