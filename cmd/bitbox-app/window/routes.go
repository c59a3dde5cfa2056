package window

import (
	"net/http"
	"strconv"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/pages"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/static"
)

// route is one thing that can be asked.
type route struct {
	needs asks
	limit int64 // of the request's body, in bytes
	acts  bool  // only a person causes it
	serve func(*server, http.ResponseWriter, *http.Request, visitor)
}

// routes is the table of all that can be asked, by method and path.
var routes = map[string]route{
	// Releases are files.
	"POST /base/{id}/deed/" + owner.Install.String():     {needs: toSee, limit: longestUpload, acts: true, serve: (*server).install},
	"POST /base/{id}/deed/" + owner.InstallCore.String(): {needs: toSee, limit: longestUpload, acts: true, serve: (*server).installCore},

	"GET /enter":            {needs: toEnter, serve: (*server).showEnter},
	"POST /enter":           {needs: toEnter, limit: longestForm, serve: (*server).enter},
	"GET /static/{name}":    {needs: toEnter, serve: (*server).showStatic},
	"POST /tab":             {needs: toEnter, limit: longestForm, serve: (*server).tab},
	"POST /settings":        {needs: toSee, limit: longestForm, acts: true, serve: (*server).changeSettings},
	"GET /{$}":              {needs: toSee, serve: (*server).start},
	"GET /stream":           {needs: toSee, serve: (*server).stream},
	"GET /bases":            {needs: toSee, serve: (*server).show},
	"GET /pair":             {needs: toSee, serve: (*server).show},
	"GET /base/{id}":        {needs: toSee, serve: (*server).show},
	"GET /base/{id}/{page}": {needs: toSee, serve: (*server).show},
	"GET /deed/{deed}":      {needs: toSee, serve: (*server).show},

	"POST /base/{id}/deed/{kind}": {needs: toSee, limit: longestForm, acts: true, serve: (*server).deed},
	"POST /pair":                  {needs: toSee, limit: longestForm, acts: true, serve: (*server).pair},
	"POST /base/{id}/audit":       {needs: toSee, limit: longestForm, acts: true, serve: (*server).inspect},
	"POST /base/{id}/lockdown":    {needs: toSee, limit: longestForm, acts: true, serve: (*server).lockdown},
	"POST /deed/{deed}/answer":    {needs: toSee, limit: longestForm, acts: true, serve: (*server).answer},
	"POST /deed/{deed}/stop":      {needs: toSee, limit: longestForm, acts: true, serve: (*server).stop},
}

// show shows a page.
func (s *server) show(w http.ResponseWriter, r *http.Request, v visitor) {
	_, _, idle := s.settings.read()
	s.life.shows(v.session, s.now(), idle)
	path := r.URL.RequestURI()
	by, page := s.page(path)
	s.document(w, by, page, path, true)
}

// page makes a page as it is now, and has asked for what it shows.
func (s *server) page(path string) (Renderer, pages.Page) {
	_, by, _ := s.settings.read()
	state := s.Owner.State()
	base, wants := by.Wants(path, state)
	for _, want := range wants {
		s.Owner.Want(base, want)
	}
	return by, by.Page(path, state, s.now())
}

// start is where a browser comes in.
func (s *server) start(w http.ResponseWriter, r *http.Request, _ visitor) {
	http.Redirect(w, r, pages.Start(s.Owner.State()), http.StatusSeeOther)
}

// nowhere answers a path that is not there.
func (s *server) nowhere(w http.ResponseWriter, r *http.Request, _ visitor) {
	s.refuse(w, r, verdict{http.StatusNotFound, "door.nowhere"})
}

// showStatic sends the script, the style or the icon.
func (s *server) showStatic(w http.ResponseWriter, r *http.Request, v visitor) {
	for _, file := range static.All {
		if file.Path == r.URL.Path {
			w.Header().Set("Content-Type", file.Type)
			w.Header().Set("Content-Length", strconv.Itoa(len(file.Content)))
			_, _ = w.Write(file.Content)
			return
		}
	}
	s.nowhere(w, r, v)
}
