package pages

import (
	"fmt"
	"html/template"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// view is what a page is made from.
type view struct {
	*Renderer
	state owner.State
	now   time.Time
	query url.Values
	// base is the Base that the page is about, and page its name; empty if it is about none.
	base owner.Base
	page string
}

// say writes a sentence in the language of the page.
func (r *Renderer) say(key string, arguments ...any) string { return r.language.Say(key, arguments...) }

// problem says an error; nil: there is none.
func (r *Renderer) problem(err error) *words.Text {
	if err == nil {
		return nil
	}
	said := r.language.Problem(err)
	return &said
}

// part makes a live part of a template; its id is the template's name with "-" for ".".
func (v *view) part(name, class string, data any) Part {
	return Part{ID: strings.ReplaceAll(name, ".", "-"), Class: class, HTML: v.render(name, data)}
}

// form makes a part that is sent with the document alone, because a person types in it.
func (v *view) form(name, class string, data any) Part {
	p := v.part(name, class, data)
	p.Form = true
	return p
}

// do is the address to which a form is sent that starts a deed.
func (v *view) do(kind owner.DeedKind) string {
	return "/base/" + v.base.ID() + "/deed/" + kind.String() + "?from=" + v.page
}

// Deadline is a moment that a page counts down to.
type deadline struct {
	At   time.Time
	What string // ends, as it is said aloud; empty: it is not
}

// functions are those that templates may call beside the methods of their data.
func (r *Renderer) functions() template.FuncMap {
	return template.FuncMap{
		"say":  r.language.Say,
		"lang": func() string { return r.language.Tag },
		// clock writes a time of day, and the date if it is another day than now.
		"clock": r.language.When,
		// moment writes a time with its date and seconds; the script counts down the last day.
		"moment": func(t time.Time) string { return r.language.When(t, time.Time{}) + t.Local().Format(":05") },
		"size":   r.language.Size,
		"ms":     func(t time.Time) int64 { return t.UnixMilli() },
		"iso":    func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"spell":  spell,
		// within writes a text as a part of a sentence.
		"within": r.language.Within,
		// sentence makes a sentence of the text of an error.
		"sentence": sentence,
	}
}

// spell writes digits so that a voice says them one by one.
func spell(digits string) string {
	return strings.Join(strings.Split(strings.ReplaceAll(digits, " ", ""), ""), ", ")
}

// capital begins a text with a capital letter.
func capital(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[size:]
}

// sentence writes the text of an error as a sentence.
func sentence(text string) string {
	if text == "" {
		return ""
	}
	return strings.TrimRight(capital(text), ".") + "."
}

// link is a link to a page.
type link struct {
	Address, Name, State string
	Current              bool
	// Badge is a number that wants attention; 0: none.
	Badge int
}

// framed puts parts into the frame that all pages share.
func (v *view) framed(title, class string, parts ...Part) Page {
	p := Page{Title: inOrder(title), Status: statusOK, Class: class, Parts: parts}
	top := struct {
		Bases          []link
		Chosen         *link
		Lock, Unlocked string
		Current        string
	}{}
	for _, b := range v.state.Bases {
		l := link{Address: addressOf(b, first), Name: b.Name, State: v.judge(b).Class, Current: v.base.Name != "" && b.ID() == v.base.ID()}
		top.Bases = append(top.Bases, l)
		if l.Current {
			top.Chosen = &l
		}
	}
	if v.page == "" && v.base.Name == "" {
		p.Bare = true
	} else {
		p.Title = inOrder(title + " · " + v.base.Name)
		if access := v.base.Look.Access; access != nil && access.Lockdown {
			top.Unlocked = addressOf(v.base, "security")
		} else if v.owns() {
			top.Lock = "/base/" + v.base.ID() + "/lockdown"
		}
		p.Side = v.render("frame.side", v.links())
	}
	p.Top = v.render("frame.top", top)
	return p
}

// links are those to the pages of the Base.
func (v *view) links() []link {
	var links []link
	for _, s := range screens {
		l := link{Address: addressOf(v.base, s.name), Name: v.say(s.name + ".nav"), Current: s.name == v.page}
		if s.name == "security" {
			l.Badge = len(v.base.Serious())
		}
		links = append(links, l)
	}
	return links
}

// heading is the beginning of a page: its title, a sentence about it, and one that says that the page is
// old, if the Base does not answer. Unstored is why the App cannot store what it learns.
type heading struct {
	Title, Text, Old string
	Unstored         *words.Text
}

func (v *view) heading(title, text string) Part {
	h := heading{Title: title, Text: text, Unstored: v.problem(v.state.UnstoredErr)}
	if v.base.Gone() && !v.base.At.IsZero() {
		h.Old = v.say("frame.old", v.language.When(v.base.At, v.now))
	}
	return v.part("frame.heading", "wide", h)
}

// enter is the page at which a browser comes in.
func (v *view) enter() Page {
	return v.bare(statusOK, v.say("errors.enter.title"), v.form("errors.enter", "", nil))
}

// Notice is a page that says one sentence.
func (r *Renderer) Notice(status int, said words.Text) Page {
	v := &view{Renderer: r}
	title := "errors.notice.title"
	if status == statusLocked {
		title = "errors.locked.title"
	}
	return v.bare(status, r.say(title), v.part("errors.notice", "", struct {
		Title  string
		Said   words.Text
		Locked bool
	}{r.say(title), said, status == statusLocked}))
}

// bare is a page without a session: it shows nothing of any Base.
func (v *view) bare(status int, title string, parts ...Part) Page {
	return Page{Title: title, Status: status, Bare: true, Class: "small", Top: v.render("frame.top", map[string]any{}), Parts: parts}
}

func percent(part float64) string { return fmt.Sprintf("%.0f %%", 100*part) }
