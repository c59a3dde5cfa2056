package pages

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// screen is a page about a Base, /base/ID/name. Its sentences "name.nav" and "name.title" are the
// link to it and its heading.
type screen struct {
	name string
	make func(*view) []Part
	// narrow: the page has one column.
	narrow bool
	// wants are what has to be asked of the Base while somebody looks.
	wants func(*view) []owner.Want
}

// screens are the pages about a Base, in the order of their links.
var screens = []screen{
	{name: "overview", make: (*view).overview},
	{name: "security", make: (*view).security, wants: logWants},
	{name: "node", make: (*view).nodePage, wants: nodeWants},
	{name: "services", make: (*view).servicesPage, wants: servicesWants},
	{name: "people", make: (*view).peoplePage},
	{name: "updates", make: (*view).updatesPage, wants: updatesWants},
	{name: "log", make: (*view).logPage, wants: logWants},
	{name: "machine", make: (*view).machinePage, wants: machineWants},
	{name: "settings", make: (*view).settingsPage},
}

// first is the page that a Base's address leads to.
const first = "overview"

// Start is the path of the page that a browser comes to: the only Base, all of them, or the first
// pairing.
func Start(s owner.State) string {
	switch len(s.Bases) {
	case 0:
		return "/pair"
	case 1:
		return addressOf(s.Bases[0], first)
	}
	return "/bases"
}

// Screen returns the name of a page about a Base, if there is one of this name; otherwise it is empty.
func Screen(name string) string {
	if slices.ContainsFunc(screens, func(s screen) bool { return s.name == name }) {
		return name
	}
	return ""
}

// addressOf is the path of a page about a Base.
func addressOf(b owner.Base, page string) string { return "/base/" + b.ID() + "/" + page }

// Page makes the page of an address (path and query). An address that leads nowhere gives a page
// with status 404.
func (r *Renderer) Page(address string, s owner.State, now time.Time) Page {
	v, make := r.find(address, s, now)
	p := make(v)
	p.Language = r.language.Tag
	return p
}

// Wants are what has to be asked of a Base, by its id, while somebody looks at a page.
func (r *Renderer) Wants(address string, s owner.State) (base string, wants []owner.Want) {
	v, _ := r.find(address, s, time.Time{})
	at := slices.IndexFunc(screens, func(s screen) bool { return s.name == v.page })
	if at < 0 || screens[at].wants == nil {
		return "", nil
	}
	return v.base.ID(), screens[at].wants(v)
}

// find reads an address.
func (r *Renderer) find(address string, s owner.State, now time.Time) (*view, func(*view) Page) {
	v := &view{Renderer: r, state: s, now: now}
	at, err := url.Parse(address)
	if err != nil {
		return v, (*view).nowhere
	}
	v.query = at.Query()
	steps := strings.Split(strings.Trim(at.Path, "/"), "/")
	switch {
	case at.Path == "/enter":
		return v, (*view).enter
	case at.Path == "/bases":
		return v, (*view).bases
	case at.Path == "/pair":
		return v, (*view).pair
	case steps[0] == "deed" && len(steps) == 2:
		return v, v.deedPage(steps[1])
	case steps[0] != "base" || len(steps) > 3:
		return v, (*view).nowhere
	}
	base, known := s.Base(append(steps, "")[1])
	name := cmp.Or(append(steps, "", "")[2], first)
	chosen := slices.IndexFunc(screens, func(s screen) bool { return s.name == name })
	if !known || chosen < 0 {
		return v, (*view).nowhere
	}
	v.base, v.page = base, name
	return v, func(v *view) Page {
		class := ""
		if screens[chosen].narrow {
			class = "narrow"
		}
		return v.framed(v.say(name+".title"), class, screens[chosen].make(v)...)
	}
}

// nowhere is the page of an address that leads nowhere.
func (v *view) nowhere() Page {
	return v.Notice(statusNowhere, words.Text{Text: v.say("errors.nowhere"), Lang: v.language.Tag})
}
