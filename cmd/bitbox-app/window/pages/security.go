package pages

import (
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/picture"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// security shows how closed the Base is, and changes it. The forms of an owner are there as long as
// the Base has a posture.
func (v *view) security() []Part {
	access := v.base.Look.Access
	parts := []Part{v.heading(v.say("security.title"), v.say("security.text")), v.part("security.lock", "wide", v.lock())}
	if access == nil {
		return append(parts, v.part("security.none", "wide", v.problem(v.base.Look.Lie)))
	}
	owns := v.base.RoleNow() == basev1.Role_ROLE_OWNER
	add := func(name, class string, data any) { parts = append(parts, v.part(name, class, data)) }
	form := func(name, class string, data any) {
		if owns {
			parts = append(parts, v.form(name, class, data))
		}
	}
	serious := len(v.base.Serious()) > 0
	if serious { // the overview leads here for them
		add("security.audit", "wide", v.audited())
	}
	add("security.seen", "wide", v.seen())
	add("security.open", "", struct {
		Rows []opened
		Node string // has what opens the server for wallets
	}{v.open(), addressOf(v.base, "node")})
	add("security.ssh", "", v.ssh())
	add("security.login", "wide", v.login())
	form("security.keys", "", v.do(owner.AddSSHKeys)) // first: without a key SSH does not open
	form("security.sshon", "", v.do(owner.EnableSSH))
	if !serious {
		add("security.audit", "wide", v.audited())
	}
	add("security.bans", "", v.bans())
	add("security.history", "", v.history())
	return parts
}

// lock is the lockdown, if there is one.
type lock struct {
	Unlock string // lifts it; empty for a person who may not
}

func (v *view) lock() *lock {
	if a := v.base.Look.Access; a == nil || !a.Lockdown {
		return nil
	}
	if !v.owns() {
		return &lock{}
	}
	return &lock{v.do(owner.Unlock)}
}

// seen is what a stranger on the network sees: a picture, and the same as text.
type seen struct {
	Picture template.HTML
	Lines   []seenLine
}

type seenLine struct{ Name, Text string }

func (v *view) seen() seen {
	a := v.base.Look.Access
	var s seen
	var doors []picture.Door
	add := func(d picture.Door, text string) {
		doors = append(doors, d)
		s.Lines = append(s.Lines, seenLine{d.Name, text})
	}
	for _, d := range a.Doors {
		if d.Left == 0 && !d.ForGood {
			add(picture.Door{Name: v.say("security.seen.channel"), Port: d.Port, Open: true, Locked: true},
				v.say("security.seen.channel.text", int(d.Port)))
			continue
		}
		add(picture.Door{Name: doorName(d.Kind), Port: d.Port, Open: true, Note: v.until(d.Left)},
			v.doorDetail(d)+" "+v.say("security.seen.door.text"))
	}
	if a.SSH {
		add(picture.Door{Name: "SSH", Port: owner.SSHPort, Open: true, Locked: true, Note: v.until(a.SSHLeft)}, v.say("security.seen.ssh.on"))
	} else {
		add(picture.Door{Name: "SSH", Port: owner.SSHPort}, v.say("security.seen.ssh.off"))
	}
	add(picture.Door{Name: v.say("security.seen.rest")}, v.say("security.seen.rest.text"))
	s.Picture = picture.Wall(picture.Words{Title: v.say("security.seen.title"), Description: v.say("security.seen.picture")}, doors)
	return s
}

// until says when something ends: the time of day, or the date if it is another day. A door of the picture has no
// room for both.
func (v *view) until(left time.Duration) string {
	if left == 0 {
		return ""
	}
	end := v.base.At.Add(left)
	if day := v.language.Day(end); day != v.language.Day(v.now) {
		return v.say("frame.until", day)
	}
	return v.say("frame.until", v.language.When(end, v.now))
}

// login is how to log in while SSH is open.
type login struct {
	Until string // when SSH ends, with the day if that is another one
	// How logs in, and recognises the Base; nil while Missing says what is not known.
	How     *owner.Opened
	Missing string
}

// login is nil while SSH is off.
func (v *view) login() *login {
	a := v.base.Look.Access
	if !a.SSH {
		return nil
	}
	l := &login{Until: v.language.When(v.base.At.Add(a.SSHLeft), v.now), How: v.base.SSH()}
	switch {
	case l.How != nil:
	case owner.HostOf(v.base.Base) == "":
		l.Missing = v.say("wallet.noaddress")
	default:
		l.Missing = v.say("security.login.nohostkey")
	}
	return l
}

// ssh is how SSH is, and who may log in.
type ssh struct {
	On   bool
	Keys []sshKey
}

// sshKey is a public key that may log in while SSH is on.
type sshKey struct{ Name, Fingerprint, Remove string }

func (v *view) ssh() ssh {
	a := v.base.Look.Access
	s := ssh{On: a.SSH}
	for n, name := range a.Keys {
		key := sshKey{Name: name}
		if n < len(a.Fingerprints) {
			key.Fingerprint = a.Fingerprints[n]
		}
		if key.Fingerprint != "" && v.owns() {
			key.Remove = v.do(owner.RemoveSSHKey)
		}
		s.Keys = append(s.Keys, key)
	}
	return s
}

// banned is an address that is shut out.
type banned struct {
	Address, Jail string
	Until         *deadline
}

// bans are the banned addresses, and when an address is banned.
type bans struct {
	Known bool
	Rule  string
	Rows  []banned
	Lift  string
}

func (v *view) bans() bans {
	b := bans{Known: v.base.Look.HasBans, Rule: v.language.Said(v.base.Look.Access.Bans).Text}
	if v.owns() {
		b.Lift = v.do(owner.LiftBan)
	}
	for _, ban := range v.base.Look.Bans {
		row := banned{Address: ban.GetAddress(), Jail: v.say("security.bans.other", ban.GetJail())}
		switch {
		case ban.GetJail() == "sshd":
			row.Jail = v.say("security.bans.ssh")
		case strings.HasSuffix(ban.GetJail(), "handshake"):
			row.Jail = v.say("security.bans.channel")
		}
		if ban.GetUntil() != nil {
			row.Until = &deadline{At: ban.GetUntil().AsTime()}
		}
		b.Rows = append(b.Rows, row)
	}
	return b
}

// shownHistory is how many of the newest entries the page has; the log of changes has all.
const shownHistory = 6

// past is an entry of the log of changes.
type past struct {
	Key       string
	At, Now   time.Time
	Who, What string
}

// history is who changed what, the newest first.
type history struct {
	Known   bool
	Problem *words.Text
	Rows    []past
	Log     string
}

func (v *view) history() history {
	answered := v.answered(owner.Changes, "")
	h := history{Known: answered.Changes != nil, Problem: v.problem(answered.Err), Log: addressOf(v.base, "log")}
	if !h.Known {
		return h
	}
	for _, e := range slices.Backward(answered.Changes.Entries) {
		if len(h.Rows) == shownHistory {
			break
		}
		what := v.changeWord(e.GetWhat())
		if e.GetFailure() != "" {
			what += " (" + v.say("log.notdone") + ")"
		}
		h.Rows = append(h.Rows, past{fmt.Sprint(e.GetNumber()), time.Unix(e.GetTime(), 0), v.now, v.changedBy(e), what})
	}
	return h
}
