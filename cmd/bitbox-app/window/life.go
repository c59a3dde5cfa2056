package window

import (
	"encoding/hex"
	"sync"
	"time"
)

const (
	// lastPage is how long the process goes on after its last page.
	lastPage = time.Minute
	// tabLease is how long a page counts without a stream and without a sign of life. Browsers let a
	// hidden page run once a minute.
	tabLease = 3 * time.Minute
	// mostTabs bounds what is remembered of tabs.
	mostTabs = 64
)

// life counts the pages that are open, and says when the process has done its work.
type life struct {
	mu   sync.Mutex
	tabs map[string]*tab
	// until is when the process may end at the earliest.
	until time.Time
}

// tab is one document in a browser.
type tab struct {
	streams int       // that it has open
	until   time.Time // when it is over, if it has no stream
}

// newLife begins with the time that the first page has to come.
func newLife(now time.Time, first time.Duration) *life {
	return &life{tabs: map[string]*tab{}, until: now.Add(first)}
}

// stay has the process go on for at least this long.
func (l *life) stay(now time.Time, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.extend(now.Add(d))
}

func (l *life) extend(t time.Time) {
	if t.After(l.until) {
		l.until = t
	}
}

// document is the tab that stands for the documents of a session without a script.
func document(of digest) string { return hex.EncodeToString(of[:]) }

// shows counts a document for a while. As soon as a script of the same session says a word, that
// counts in the place of the document.
func (l *life) shows(of digest, now time.Time, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.tab(document(of)); t != nil {
		t.until = now.Add(d)
	}
	l.extend(now.Add(lastPage))
}

// opens counts a stream of a tab, until the function that it returns is called with the time of
// the end.
func (l *life) opens(name string, of digest, now time.Time) func(time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.tabs, document(of))
	t := l.tab(name)
	if t == nil {
		return func(time.Time) {}
	}
	t.streams++
	t.until = now.Add(lastPage)
	return func(now time.Time) {
		l.mu.Lock()
		defer l.mu.Unlock()
		t.streams--
		l.extend(now.Add(lastPage))
	}
}

// tab returns the tab of that name, or nil if there are too many.
func (l *life) tab(name string) *tab {
	t, ok := l.tabs[name]
	if !ok && len(l.tabs) < mostTabs {
		t = &tab{}
		l.tabs[name] = t
	}
	return t
}

// sign is a sign of life of a tab without a stream.
func (l *life) sign(name string, of digest, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.tabs, document(of))
	if t := l.tab(name); t != nil {
		t.until = now.Add(tabLease)
	}
}

// closes notes that a tab is closed.
func (l *life) closes(name string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t, ok := l.tabs[name]; ok && t.streams == 0 {
		delete(l.tabs, name)
		l.extend(now.Add(lastPage))
	} else if ok {
		t.until = now
	}
}

// over tells whether the process may end: the last page is gone for a minute, and no deed is under
// way.
func (l *life) over(now time.Time, underWay bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, t := range l.tabs {
		switch {
		case t.streams > 0 || now.Before(t.until):
			l.extend(now.Add(lastPage))
		default:
			l.extend(t.until.Add(lastPage))
			delete(l.tabs, name)
		}
	}
	if underWay {
		l.extend(now.Add(lastPage))
	}
	return !now.Before(l.until)
}
