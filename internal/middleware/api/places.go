package api

import (
	"errors"
	"sync"

	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
)

// places are what Apps have under way of what asks the system helper.
type places struct {
	mu        sync.Mutex
	apps      map[string]*appPlaces // by the id of the App; those of Apps that are gone are a few bytes each
	streaming int                   // of all Apps
}

type appPlaces struct {
	asking    chan struct{} // holds maxAsking
	streaming int
}

func (p *places) ofLocked(app string) *appPlaces {
	if p.apps == nil {
		p.apps = map[string]*appPlaces{}
	}
	if p.apps[app] == nil {
		p.apps[app] = &appPlaces{asking: make(chan struct{}, maxAsking)}
	}
	return p.apps[app]
}

// askingOf returns the places that an App has for methods of the asking table.
func (p *places) askingOf(app string) chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ofLocked(app).asking
}

// errTooManyStreams: a call of the streaming table finds no place.
var errTooManyStreams = errors.New("too many logs or installations are being followed already; end one of them")

// beginStream takes a place for a call of the streaming table; end gives it back.
func (p *places) beginStream(app string) (end func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	of := p.ofLocked(app)
	if of.streaming >= maxStreaming || p.streaming >= helperclient.MaxMiddlewareReaders {
		return nil, errTooManyStreams
	}
	of.streaming++
	p.streaming++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		of.streaming--
		p.streaming--
	}, nil
}
