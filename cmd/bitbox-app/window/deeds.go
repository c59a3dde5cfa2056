package window

import (
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/pages"
)

const (
	// longestForm bounds a form, in bytes.
	longestForm = 64 << 10
	// mostValues bounds how often a field is there: a Base has a few addresses.
	mostValues = 16
	// longestUpload bounds a form with a file, in bytes, and uploadTime its way here. An image has 700
	// MB.
	longestUpload = 4 << 30
	uploadTime    = 10 * time.Minute
	// uploads begins the names of files that are on their way to a Base, in the App's folder.
	uploads = "upload-"
)

// errForm is what a person never sees: the pages write forms that fit.
var errForm = errors.New("the form has other fields than expected")

// fields are the values of a form, by name, and which of them were read.
type fields struct {
	values map[string][]string
	read   map[string]bool
}

// readFields parses a form, whose length is bounded.
func readFields(r *http.Request) (*fields, error) {
	if err := r.ParseForm(); err != nil {
		return nil, err
	}
	return &fields{r.PostForm, map[string]bool{}}, nil
}

// value is a field, "" if it is not there: a browser sends no box that is not ticked. Several of one
// name are separated by spaces.
func (f *fields) value(name string) string {
	f.read[name] = true
	return strings.Join(f.values[name], " ")
}

// rest refuses a form with a field that nobody has read.
func (f *fields) rest() error {
	for name, values := range f.values {
		if !f.read[name] || len(values) > mostValues {
			return errForm
		}
	}
	return nil
}

// begin starts a deed and goes to its page. A press that comes twice leads to the one deed.
func (s *server) begin(w http.ResponseWriter, r *http.Request, base string, d owner.Deed) {
	number, err := s.Owner.Do(base, d)
	if err != nil {
		deeds := s.Owner.State().Deeds
		same := func(one owner.DeedState) bool {
			return one.Ended.IsZero() && one.Base == base && reflect.DeepEqual(one.Deed, d)
		}
		if at := slices.IndexFunc(deeds, same); at >= 0 {
			number, err = deeds[at].Number, nil
		}
	}
	if err != nil {
		s.problem(w, http.StatusConflict, err)
		return
	}
	http.Redirect(w, r, fmt.Sprintf("/deed/%d", number), http.StatusSeeOther)
}

// deed starts the deed of a form.
func (s *server) deed(w http.ResponseWriter, r *http.Request, v visitor) {
	base, known := s.Owner.State().Base(r.PathValue("id"))
	kind, _ := owner.ParseDeed(r.PathValue("kind"))
	read, exists := forms[kind]
	if !known || !exists {
		s.nowhere(w, r, v)
		return
	}
	s.take(w, r, base, kind, read)
}

// lockdown has a route of its own: it is a button on each page.
func (s *server) lockdown(w http.ResponseWriter, r *http.Request, v visitor) {
	base, known := s.Owner.State().Base(r.PathValue("id"))
	if !known {
		s.nowhere(w, r, v)
		return
	}
	s.take(w, r, base, owner.Lockdown, plain)
}

// pair starts a pairing.
func (s *server) pair(w http.ResponseWriter, r *http.Request, _ visitor) {
	s.take(w, r, owner.Base{}, owner.Pair, readPair)
}

// inspect has a Base inspect itself. It changes nothing, so it is no deed.
func (s *server) inspect(w http.ResponseWriter, r *http.Request, v visitor) {
	base, known := s.Owner.State().Base(r.PathValue("id"))
	form, err := readFields(r)
	if !known || err != nil || form.rest() != nil {
		s.nowhere(w, r, v)
		return
	}
	s.Owner.Refresh(base.ID(), true)
	http.Redirect(w, r, "/base/"+base.ID()+"/security", http.StatusSeeOther)
}

// take reads a form and starts its deed.
func (s *server) take(w http.ResponseWriter, r *http.Request, b owner.Base, kind owner.DeedKind, read reader) {
	form, err := readFields(r)
	if err != nil {
		s.refuse(w, r, verdict{http.StatusBadRequest, "door.form"})
		return
	}
	d, err := read(form, b)
	d.Kind, d.From = kind, pages.Screen(r.URL.Query().Get("from"))
	switch {
	case err != nil:
		s.problem(w, http.StatusBadRequest, err)
	case form.rest() != nil:
		s.refuse(w, r, verdict{http.StatusBadRequest, "door.form"})
	case d.Kind == owner.Pair:
		s.begin(w, r, "", d)
	default:
		s.begin(w, r, b.ID(), d)
	}
}

// number is the number of the deed that a path names.
func number(r *http.Request) (uint64, bool) {
	n, err := strconv.ParseUint(r.PathValue("deed"), 10, 64)
	return n, err == nil
}

// answer answers the question of a deed. It names the question that the person has read.
func (s *server) answer(w http.ResponseWriter, r *http.Request, _ visitor) {
	deed, ok := number(r)
	form, err := readFields(r)
	if err != nil || !ok {
		s.refuse(w, r, verdict{http.StatusBadRequest, "door.form"})
		return
	}
	question, wrong := strconv.ParseUint(form.value("question"), 10, 64)
	said, text := form.value("answer"), form.value("text")
	if wrong != nil || said != "yes" && said != "no" || form.rest() != nil {
		s.refuse(w, r, verdict{http.StatusBadRequest, "door.form"})
		return
	}
	if err := s.Owner.Answer(deed, question, owner.Answer{Yes: said == "yes", Text: text}); err != nil {
		s.problem(w, http.StatusConflict, err)
		return
	}
	http.Redirect(w, r, fmt.Sprintf("/deed/%d", deed), http.StatusSeeOther)
}

// stop ends a deed; its page says what that leaves.
func (s *server) stop(w http.ResponseWriter, r *http.Request, _ visitor) {
	deed, ok := number(r)
	form, err := readFields(r)
	if err != nil || !ok || form.rest() != nil {
		s.refuse(w, r, verdict{http.StatusBadRequest, "door.form"})
		return
	}
	s.Owner.Stop(deed)
	http.Redirect(w, r, fmt.Sprintf("/deed/%d", deed), http.StatusSeeOther)
}

// install takes a release of the Base's software from the browser and starts to bring it to a Base.
func (s *server) install(w http.ResponseWriter, r *http.Request, v visitor) {
	s.bring(w, r, v, owner.Install, softwareFiles)
}

// installCore takes a release of Bitcoin Core in the same way.
func (s *server) installCore(w http.ResponseWriter, r *http.Request, v visitor) {
	s.bring(w, r, v, owner.InstallCore, coreFiles)
}

// fileField is a file of a form. Its name here is decided by this App, which looks at the browser's at most.
type fileField struct {
	field string
	name  func(sent string) (string, error)
	most  int64 // bytes
}

// named is the name of a file that has always the same.
func named(name string) func(string) (string, error) {
	return func(string) (string, error) { return name, nil }
}

// The files of the two forms, in their order. The first one is what the deed is about.
var (
	softwareFiles = []fileField{{"file", named("release"), longestUpload}}
	coreFiles     = []fileField{
		{"archive", client.BitcoinCoreName, client.MaxBitcoinCore},
		{"sums", named(client.BitcoinCoreSums), client.MaxBitcoinCoreSums},
		{"signatures", named(client.BitcoinCoreSignatures), client.MaxBitcoinCoreSums},
	}
)

// bring takes files from the browser and starts their deed. They are kept in the App's folder until that
// has ended: an upload that breaks off is continued from there.
func (s *server) bring(w http.ResponseWriter, r *http.Request, v visitor, kind owner.DeedKind, files []fileField) {
	base, known := s.Owner.State().Base(r.PathValue("id"))
	if !known {
		s.nowhere(w, r, v)
		return
	}
	select {
	case s.uploading <- struct{}{}:
	default:
		s.refuse(w, r, verdict{http.StatusConflict, "door.uploading"})
		return
	}
	path, err := s.receive(w, r, files)
	if err != nil {
		<-s.uploading
		s.Say(fmt.Sprintf("A file could not be taken from the browser: %v.", err))
		s.refuse(w, r, verdict{http.StatusBadRequest, "door.upload"})
		return
	}
	done := func() {
		_ = os.RemoveAll(filepath.Dir(path)) // the next start removes what is left
		<-s.uploading
	}
	number, err := s.Owner.Do(base.ID(), owner.Deed{Kind: kind, Text: path, From: pages.Screen(r.URL.Query().Get("from"))})
	if err != nil {
		done()
		s.problem(w, http.StatusConflict, err)
		return
	}
	s.running.Go(func() {
		defer done()
		s.awaitDeed(number)
	})
	http.Redirect(w, r, fmt.Sprintf("/deed/%d", number), http.StatusSeeOther)
}

// receive writes the files of a form into a folder of their own in the App's folder, and returns the path
// of the first one.
func (s *server) receive(w http.ResponseWriter, r *http.Request, files []fileField) (_ string, err error) {
	control := http.NewResponseController(w)
	until := time.Now().Add(uploadTime)
	if err := errors.Join(control.SetReadDeadline(until), control.SetWriteDeadline(until.Add(answerTime))); err != nil {
		return "", err
	}
	sent, err := r.MultipartReader()
	if err != nil {
		return "", err
	}
	folder, err := os.MkdirTemp(s.Dir, uploads)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(folder)
		}
	}()
	first := ""
	for n, file := range files {
		path, err := file.receive(sent, folder)
		if err != nil {
			return "", err
		}
		if n == 0 {
			first = path
		}
	}
	if _, err := sent.NextPart(); !errors.Is(err, io.EOF) {
		return "", errForm // nothing follows
	}
	return first, nil
}

// receive writes the next file of a form into a folder.
func (p fileField) receive(from *multipart.Reader, folder string) (path string, err error) {
	sent, err := from.NextPart()
	if err != nil {
		return "", err
	}
	if sent.FormName() != p.field || sent.FileName() == "" {
		return "", errForm
	}
	name, err := p.name(sent.FileName())
	if err != nil {
		return "", err
	}
	path = filepath.Join(folder, name)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	n, err := io.Copy(file, io.LimitReader(sent, p.most+1))
	if err == nil && n > p.most {
		err = errForm
	}
	return path, errors.Join(err, file.Close())
}

// awaitDeed returns when a deed has ended, or the window.
func (s *server) awaitDeed(number uint64) {
	wake, unsubscribe := s.Owner.Subscribe()
	defer unsubscribe()
	for {
		if d, known := s.Owner.State().Deed(number); !known || !d.Ended.IsZero() {
			return
		}
		select {
		case <-wake:
		case <-s.gone.Done():
			return
		}
	}
}

// removeUploads removes files of a window that was killed. Only one process has the App's window.
func removeUploads(dir string) error {
	files, err := os.ReadDir(dir)
	for _, file := range files {
		if strings.HasPrefix(file.Name(), uploads) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, file.Name())))
		}
	}
	return err
}

// problem shows an error as a page.
func (s *server) problem(w http.ResponseWriter, status int, err error) {
	language, by, _ := s.settings.read()
	s.document(w, by, by.Notice(status, language.Problem(err)), "", false)
}
