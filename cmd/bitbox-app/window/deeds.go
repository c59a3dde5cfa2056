package window

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
)

const (
	// longestForm bounds a form, in bytes, and longestField one field. A key for SSH of RSA with
	// 16384 bits has 2,800.
	longestForm, longestField = 64 << 10, 32 << 10
)

// values are the fields of a form.
type values map[string]string

// form is how a deed is written as a form.
type form struct {
	// fields are the names of its fields; no other may be there.
	fields []string
	deed   func(values) (owner.Deed, error)
}

// plain is a form without fields.
func plain(kind owner.DeedKind) form {
	return form{nil, func(values) (owner.Deed, error) { return owner.Deed{Kind: kind}, nil }}
}

// about is a form with a subject.
func about(kind owner.DeedKind) form {
	return form{[]string{"subject"}, func(v values) (owner.Deed, error) {
		return owner.Deed{Kind: kind, Subject: v["subject"]}, required(v, "subject")
	}}
}

// required refuses a form in which a field is missing or empty.
func required(v values, fields ...string) error {
	for _, name := range fields {
		if v[name] == "" {
			return errForm
		}
	}
	return nil
}

// forms are the deeds of /base/{id}/deed/{kind}. Which values are possible is decided where commands have
// it decided, too.
var forms = map[string]form{
	"open-window":  plain(owner.OpenWindow),
	"close-window": plain(owner.CloseWindow),
	"end-lease":    about(owner.EndLease),
	"confirm-try":  plain(owner.ConfirmTry),
	"lift-ban":     about(owner.LiftBan),
	"fix":          about(owner.Fix),
	"unlock":       plain(owner.Unlock),
}

// errForm is what a person never sees: the pages write forms that fit.
var errForm = errors.New("the form has other fields than expected, or one that is too long")

// readForm reads a form that has these fields and no others, each at most once. A field that is not
// there is "": a browser sends no box that is not ticked.
func readForm(r *http.Request, fields ...string) (values, error) {
	if err := r.ParseForm(); err != nil {
		return nil, err
	}
	v := values{}
	for name, all := range r.PostForm {
		if !slices.Contains(fields, name) || len(all) != 1 || len(all[0]) > longestField {
			return nil, errForm
		}
		v[name] = all[0]
	}
	return v, nil
}

// begin starts a deed and goes to its page.
func (s *server) begin(w http.ResponseWriter, r *http.Request, base string, d owner.Deed) {
	if _, known := s.Owner.State().Base(base); base != "" && !known {
		s.nowhere(w, r, visitor{})
		return
	}
	number, err := s.Owner.Do(base, d)
	if err != nil {
		s.notice(w, http.StatusConflict, err.Error())
		return
	}
	http.Redirect(w, r, fmt.Sprintf("/deed/%d", number), http.StatusSeeOther)
}

// deed starts a deed of a form.
func (s *server) deed(w http.ResponseWriter, r *http.Request, v visitor) {
	f, known := forms[r.PathValue("kind")]
	if !known {
		s.nowhere(w, r, v)
		return
	}
	read, err := readForm(r, f.fields...)
	if err == nil {
		var d owner.Deed
		if d, err = f.deed(read); err == nil {
			s.begin(w, r, r.PathValue("id"), d)
			return
		}
	}
	s.refuse(w, r, verdict{http.StatusBadRequest, "door.form"})
}

// lockdown has a route of its own: it is a button on each page.
func (s *server) lockdown(w http.ResponseWriter, r *http.Request, _ visitor) {
	if _, err := readForm(r); err != nil {
		s.refuse(w, r, verdict{http.StatusBadRequest, "door.form"})
		return
	}
	s.begin(w, r, r.PathValue("id"), owner.Deed{Kind: owner.Lockdown})
}

// number is the number of the deed that a path names.
func number(r *http.Request) (uint64, bool) {
	n, err := strconv.ParseUint(r.PathValue("deed"), 10, 64)
	return n, err == nil
}

// answer answers the question of a deed. It names the question that the person has read.
func (s *server) answer(w http.ResponseWriter, r *http.Request, v visitor) {
	deed, ok := number(r)
	read, err := readForm(r, "question", "answer", "text")
	question, wrong := strconv.ParseUint(read["question"], 10, 64)
	if !ok || err != nil || wrong != nil || read["answer"] != "yes" && read["answer"] != "no" {
		s.refuse(w, r, verdict{http.StatusBadRequest, "door.form"})
		return
	}
	a := owner.Answer{Yes: read["answer"] == "yes", Text: read["text"]}
	if err := s.Owner.Answer(deed, question, a); err != nil {
		s.notice(w, http.StatusConflict, err.Error())
		return
	}
	http.Redirect(w, r, fmt.Sprintf("/deed/%d", deed), http.StatusSeeOther)
}

// stop ends a deed; its page says what that leaves.
func (s *server) stop(w http.ResponseWriter, r *http.Request, _ visitor) {
	deed, ok := number(r)
	if _, err := readForm(r); err != nil || !ok {
		s.refuse(w, r, verdict{http.StatusBadRequest, "door.form"})
		return
	}
	s.Owner.Stop(deed)
	http.Redirect(w, r, fmt.Sprintf("/deed/%d", deed), http.StatusSeeOther)
}

// notice shows a sentence as a page.
func (s *server) notice(w http.ResponseWriter, status int, sentence string) {
	_, by, _ := s.settings.read()
	s.document(w, by, by.Notice(status, sentence), "", false)
}
