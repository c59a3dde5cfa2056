package window

import (
	"fmt"
	"net/http"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/peer"
)

// showEnter shows the page at which a browser comes in. It has no state of any Base.
func (s *server) showEnter(w http.ResponseWriter, r *http.Request, _ visitor) {
	_, pages, _ := s.settings.read()
	s.document(w, pages, pages.Page(r.URL.Path, owner.State{}, s.now()), r.URL.Path, false)
}

// enter takes a ticket or a code for a session.
func (s *server) enter(w http.ResponseWriter, r *http.Request, v visitor) {
	if err := r.ParseForm(); err != nil {
		s.refuse(w, r, verdict{http.StatusBadRequest, "door.form"})
		return
	}
	ticket, code := r.PostForm.Get("ticket"), r.PostForm.Get("code")
	var cookie string
	var result entered
	var err error
	switch {
	case ticket == "":
		cookie, result, err = s.desk.enterByCode(code, s.now())
	case v.peer == peer.Own:
		cookie, result, err = s.desk.enterByTicket(ticket, s.now())
	default:
		// Another user may have read the ticket in the browser's command line. The code of the terminal
		// is for its reader alone.
		answerJSON(w, http.StatusUnauthorized, map[string]any{"code": true, "refused": s.settings.say("door.code")})
		return
	}
	if err != nil {
		s.Say(fmt.Sprintf("A browser could not be let in: %v.", err))
		s.refuse(w, r, verdict{http.StatusInternalServerError, "door.failed"})
		return
	}
	if result == usedTicket {
		s.Say("A ticket was used twice, so all pages are locked. If that was not you, another program of yours may have read it.")
	}
	if result != welcome {
		s.refuse(w, r, verdict{http.StatusForbidden, enteredWords[result]})
		return
	}
	s.desk.forget(v.session)
	s.life.stay(s.now(), lastPage)
	http.SetCookie(w, &http.Cookie{Name: s.cookie, Value: cookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
	if single(r, "Sec-Fetch-Mode") == "navigate" {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// tab hears from a page that has no stream. A locked page may say that it is still there.
func (s *server) tab(w http.ResponseWriter, r *http.Request, v visitor) {
	if err := r.ParseForm(); err != nil || !isID(r.PostForm.Get("tab")) {
		s.refuse(w, r, verdict{http.StatusBadRequest, "door.form"})
		return
	}
	name, now := r.PostForm.Get("tab"), s.now()
	if r.PostForm.Get("state") == "closed" {
		s.life.closes(name, now)
	} else {
		s.life.sign(name, v.session, now)
	}
	if v.state != open {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.PostForm.Get("active") == "1" {
		s.desk.active(v.session, now)
	}
	w.WriteHeader(http.StatusNoContent)
}
