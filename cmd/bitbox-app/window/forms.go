package window

import (
	"slices"
	"strings"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/internal/timespan"
)

// reader makes a deed of a form, without its kind. Its Base is as the person has seen it.
type reader func(f *fields, b owner.Base) (owner.Deed, error)

// forms are those of /base/{id}/deed/{kind}: the fields of each, and what they become. The kind is the
// name that package owner gives the deed. Which values are possible is decided where commands have it
// decided; an error is a sentence for the person.
var forms = map[owner.DeedKind]reader{
	owner.OpenWindow:      readWindow,
	owner.CloseWindow:     plain,
	owner.EndLease:        about("kind"),
	owner.ConfirmTry:      plain,
	owner.LiftBan:         about("address"),
	owner.Fix:             readFix,
	owner.Unlock:          plain,
	owner.Expose:          readExpose,
	owner.EnableSSH:       readSSH,
	owner.AddSSHKeys:      written("", "text"),
	owner.RemoveSSHKey:    about("key"),
	owner.SetRole:         readRole,
	owner.Revoke:          aboutApp,
	owner.RenameApp:       written("app", "name"),
	owner.AcceptApp:       readAccept,
	owner.StartService:    about("service"),
	owner.StopService:     about("service"),
	owner.RestartService:  about("service"),
	owner.EnableService:   about("service"),
	owner.DisableService:  about("service"),
	owner.Rename:          written("", "name"),
	owner.SetTimeZone:     written("", "zone"),
	owner.Reboot:          plain,
	owner.PowerOff:        plain,
	owner.PreviousVersion: plain,
	owner.CheckReleases:   readList,
	owner.InstallNewer:    plain,
	owner.NodeOnline:      about("service"),
	owner.NodeOffline:     about("service"),
	owner.CheckWallet:     plain,
	owner.Reindex:         plain,
	owner.Resync:          plain,
	owner.ChangeNode:      readNode,
	owner.UseDisk:         readDisk,
	owner.FactoryReset:    readReset,
	owner.DebianUpdates:   plain,
	owner.Forget:          plain,
}

// plain is a form without fields.
func plain(*fields, owner.Base) (owner.Deed, error) { return owner.Deed{}, nil }

// about is a form with a subject, whose field may be called "subject" too.
func about(field string) reader {
	return func(f *fields, _ owner.Base) (owner.Deed, error) {
		subject, err := f.subject(field)
		return owner.Deed{Subject: subject}, err
	}
}

func (f *fields) subject(field string) (string, error) {
	for _, name := range []string{field, "subject"} {
		if text := f.value(name); text != "" {
			return text, nil
		}
	}
	return "", owner.Unusable("fill in the field %q", field)
}

// written is a form with a text that the person writes, perhaps about a subject.
func written(subject, text string) reader {
	return func(f *fields, _ owner.Base) (d owner.Deed, err error) {
		d = owner.Deed{Text: f.value(text)}
		if subject != "" {
			d.Subject, err = f.subject(subject)
		}
		if err == nil && d.Text == "" {
			err = owner.Unusable("fill in the field %q", text)
		}
		return d, err
	}
}

// aboutApp is a form about an App. Its name goes along, as the person has read it.
func aboutApp(f *fields, b owner.Base) (owner.Deed, error) {
	id, err := f.subject("app")
	if err != nil {
		return owner.Deed{}, err
	}
	at := slices.IndexFunc(b.Look.Apps, func(a *basev1.App) bool { return a.GetId() == id })
	if at < 0 {
		return owner.Deed{}, &client.Error{Kind: client.ErrNoSuchApp, Text: "the Base no longer lists that App"}
	}
	return owner.Deed{Subject: id, Text: b.Look.Apps[at].GetName()}, nil
}

// readWindow has a role, or none: it is chosen at the Base.
func readWindow(f *fields, _ owner.Base) (d owner.Deed, err error) {
	if role := f.value("role"); role != "" {
		d.Role, err = client.ParseRole(role)
	}
	return d, err
}

func readRole(f *fields, b owner.Base) (owner.Deed, error) {
	d, err := aboutApp(f, b)
	if err == nil {
		d.Role, err = client.ParseRole(f.value("role"))
	}
	return d, err
}

func readAccept(f *fields, _ owner.Base) (d owner.Deed, err error) {
	if d.Text, err = f.subject("number"); err == nil {
		d.Role, err = client.ParseRole(f.value("role"))
	}
	return d, err
}

// readFix takes what the Base will do from the Base's own finding.
func readFix(f *fields, b owner.Base) (owner.Deed, error) {
	id, err := f.subject("id")
	if err != nil {
		return owner.Deed{}, err
	}
	at := slices.IndexFunc(b.Findings, func(one *basev1.Finding) bool { return one.GetId() == id && one.GetFixable() })
	if at < 0 {
		return owner.Deed{}, owner.Unusable("the Base no longer finds that, or cannot repair it by itself")
	}
	return owner.Deed{Kind: owner.Fix, Subject: id, Text: b.Findings[at].GetFix()}, nil
}

// untilClosed stands in the place of a time.
const untilClosed = "until-closed"

func readSSH(f *fields, _ owner.Base) (owner.Deed, error) {
	length, err := timespan.Parse(f.value("for"))
	if err != nil || owner.CheckLease(length) != nil {
		return owner.Deed{}, owner.Unusable("%q is no time for which something can be open; 5m (minutes) to 7d are", f.value("for"))
	}
	return owner.Deed{For: length}, nil
}

func readExpose(f *fields, b owner.Base) (d owner.Deed, err error) {
	if d.Subject, err = f.subject("kind"); err != nil {
		return d, err
	}
	if f.value("for") == untilClosed {
		d.Opening.UntilClosed = true
	} else {
		lease, err := readSSH(f, b)
		if err != nil {
			return d, err
		}
		d.Opening.For = lease.For
	}
	listed := strings.FieldsFunc(f.value("from"), func(r rune) bool { return strings.ContainsRune(", ;\t\r\n", r) })
	if d.Opening.From, err = owner.ReadNetworks(listed); err != nil {
		return d, owner.Unusable("these networks cannot be used: %v; write them as 192.168.1.0/24", err)
	}
	d.Opening.ShareEntry = f.value("share") != ""
	if public := client.PublicNetworks(d.Opening.From); f.value("public") == "" && len(public) > 0 {
		return d, owner.Unusable("%s has computers of strangers; tick the box if you mean it", public[0])
	}
	return d, nil
}

// readList has the address of a list of releases, or none.
func readList(f *fields, _ owner.Base) (owner.Deed, error) {
	return owner.Deed{Text: f.value("address")}, nil
}

func readNode(f *fields, _ owner.Base) (owner.Deed, error) {
	return owner.Deed{Node: owner.NodeWish{Program: f.value("program"), Network: f.value("network"), Prune: f.value("prune"),
		Cache: f.value("cache"), Every: f.value("every")}}, nil
}

func readDisk(f *fields, _ owner.Base) (d owner.Deed, err error) {
	d.Subject, err = f.subject("disk")
	d.Erase, d.Pruned = f.value("erase") != "", f.value("pruned") != ""
	return d, err
}

// readReset has the box for the chain, which stays unless it is ticked.
func readReset(f *fields, _ owner.Base) (owner.Deed, error) {
	return owner.Deed{Erase: f.value("erase") != ""}, nil
}

// readPair is the form of a pairing, which has no Base yet.
func readPair(f *fields, _ owner.Base) (owner.Deed, error) {
	d := owner.Deed{Addresses: strings.Fields(f.value("address")), Text: f.value("name"), Words: f.value("words") != ""}
	if len(d.Addresses) == 0 {
		return d, owner.Unusable("fill in the address: host, or host:port")
	}
	for _, address := range d.Addresses {
		if err := client.CheckAddress(address); err != nil {
			return d, err
		}
	}
	return d, nil
}
