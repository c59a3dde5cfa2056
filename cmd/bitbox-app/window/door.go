package window

import (
	"net/http"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/peer"
)

// facts are what the door knows of a request before anything of it is parsed.
type facts struct {
	method string
	host   string // the header Host, whole
	// site, mode and dest are the headers Sec-Fetch-Site, Sec-Fetch-Mode and Sec-Fetch-Dest, which
	// no script can set; "" if the browser sends none.
	site, mode, dest string
	session          sessionState
}

// asks is what a route demands of a request.
type asks int

const (
	// toEnter is a route that a browser without a session may use.
	toEnter asks = iota + 1
	// toSee needs a session that is open.
	toSee
)

// sessionState is what the request's cookie is worth.
type sessionState int

const (
	stranger sessionState = iota // no cookie, or none of ours
	locked
	open
)

// verdict is what becomes of a request.
type verdict struct {
	status int    // 0: it comes in
	why    string // the key of the sentence for the user
}

// comesIn tells whether the verdict lets the request in.
func (v verdict) comesIn() bool { return v.status == 0 }

// rule refuses requests.
type rule struct {
	name    string
	refuses func(d door, f facts, need asks) bool
	verdict verdict
}

// rules are asked in this order; the first that refuses decides. A request that none refuses
// comes in.
var rules = []rule{
	// A name that an attacker points to 127.0.0.1 is not this host (DNS rebinding).
	{"host", func(d door, f facts, _ asks) bool { return f.host != d.host }, verdict{http.StatusMisdirectedRequest, "door.host"}},
	// Cookies do not tell the ports of 127.0.0.1 apart, and for SameSite all of them are one site. A page
	// on another port is "same-site" here; an address that was typed or opened by a program is "none".
	{"site", func(_ door, f facts, _ asks) bool {
		return f.site != "same-origin" && !(f.site == "none" && f.navigates())
	}, verdict{http.StatusForbidden, "door.site"}},
	// A page in a frame could be covered by another one.
	{"frame", func(_ door, f facts, _ asks) bool { return f.mode == "navigate" && f.dest != "document" },
		verdict{http.StatusForbidden, "door.site"}},
	{"session", func(_ door, f facts, need asks) bool { return need == toSee && f.session != open },
		verdict{http.StatusUnauthorized, "door.stranger"}},
}

// navigates tells whether the browser goes to a page: by an address, a bookmark or a link.
func (f facts) navigates() bool {
	return f.method == http.MethodGet && f.mode == "navigate" && f.dest == "document"
}

// door decides which requests come in.
type door struct {
	// admits decides about connections, before anything is read.
	admits func(peer.Whose) bool
	host   string // the only Host that is ours: 127.0.0.1 and the port
	rules  []rule
}

// admits: another user of this computer can read the address in the command line of the browser, and
// connect.
func admits(whose peer.Whose) bool { return whose != peer.Other }

// decide is the first refusal of the rules, or lets the request in.
func (d door) decide(f facts, need asks) verdict {
	for _, r := range d.rules {
		if r.refuses(d, f, need) {
			return r.verdict
		}
	}
	return verdict{}
}
