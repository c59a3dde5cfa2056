package window

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
)

// settingsFile has what a person has chosen in the window, in the App's folder.
const settingsFile = "window.json"

// The bounds of how long a page stays open without key or pointer.
const (
	usualIdle    = 15 * time.Minute
	shortestIdle = time.Minute
	longestIdle  = 24 * time.Hour
)

// chosen is what a person has chosen in the window.
type chosen struct {
	Language    string `json:"language,omitempty"`
	IdleMinutes int    `json:"idleMinutes,omitempty"`
}

// settings are how the window is at the moment.
type settings struct {
	make func(words.Language, time.Duration) Renderer
	path string

	mu       sync.Mutex
	language words.Language
	pages    Renderer
	idle     time.Duration
}

// newSettings are those of the options, or else those that a person has chosen, or else the usual ones.
func newSettings(o Options) *settings {
	s := &settings{make: o.Pages, path: filepath.Join(o.Dir, settingsFile)}
	var was chosen
	if text, err := os.ReadFile(s.path); err == nil {
		_ = json.Unmarshal(text, &was) // a file that is damaged is written again with the next choice
	}
	s.language = words.In(o.SystemLanguage)
	for _, tag := range []string{was.Language, o.Language} {
		if l, ok := languageOf(tag); ok {
			s.language = l
		}
	}
	s.idle = usualIdle
	for _, idle := range []time.Duration{time.Duration(was.IdleMinutes) * time.Minute, o.Idle} {
		if CheckIdle(idle) == nil {
			s.idle = idle
		}
	}
	s.pages = s.make(s.language, s.idle)
	return s
}

// languageOf is the language with exactly this tag.
func languageOf(tag string) (words.Language, bool) {
	for _, l := range words.Languages() {
		if l.Tag == tag {
			return l, true
		}
	}
	return words.Language{}, false
}

// CheckIdle refuses a time after which a page locks that is shorter than a minute or longer than a
// day.
func CheckIdle(idle time.Duration) error {
	if idle < shortestIdle || idle > longestIdle {
		return errors.New("the window locks after 1 minute to 24 hours without key or pointer; give a time between them")
	}
	return nil
}

// read is the language, the pages in it, and how long a page stays open.
func (s *settings) read() (words.Language, Renderer, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.language, s.pages, s.idle
}

func (s *settings) say(key string, arguments ...any) string {
	language, _, _ := s.read()
	return language.Say(key, arguments...)
}

// choose changes them, now and for the next start.
func (s *settings) choose(language words.Language, idle time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.language, s.pages, s.idle = language, s.make(language, idle), idle
	text, err := json.Marshal(chosen{language.Tag, int(idle / time.Minute)})
	if err != nil {
		return err
	}
	return atomicfile.WriteFileAtomic(s.path, text, 0o600)
}

// changeSettings takes the form of the settings.
func (s *server) changeSettings(w http.ResponseWriter, r *http.Request, _ visitor) {
	form, err := readFields(r)
	if err != nil {
		s.refuse(w, r, verdict{http.StatusBadRequest, "door.form"})
		return
	}
	back := "/"
	if base, known := s.Owner.State().Base(form.value("base")); known {
		back = "/base/" + base.ID() + "/settings"
	}
	language, known := languageOf(form.value("language"))
	_, _, idle := s.settings.read()
	if typed := form.value("idle"); typed != "" { // empty: as before
		minutes, wrong := strconv.Atoi(typed)
		if wrong != nil || minutes > int(longestIdle/time.Minute) {
			minutes = 0 // which is refused
		}
		idle = time.Duration(minutes) * time.Minute
	}
	if !known || CheckIdle(idle) != nil || form.rest() != nil {
		s.refuse(w, r, verdict{http.StatusBadRequest, "door.form"})
		return
	}
	if err := s.settings.choose(language, idle); err != nil {
		s.Say(fmt.Sprintf("The settings of the window could not be kept for the next start: %v.", err))
	}
	http.Redirect(w, r, back, http.StatusSeeOther)
}
