package discovery

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/announcement"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
)

const (
	// maxMessage is the largest multicast DNS message in bytes (RFC 6762, section 17).
	maxMessage = 9000
	// maxRecords is how many records of one message are read. A Base's answer has 3, and one for
	// each address.
	maxRecords = 64
	// maxQuestions is how many questions of one message are read.
	maxQuestions = 16

	// The times to live in seconds that RFC 6762, section 10 recommends, for
	// records with a host name in them and for others; and the bound for
	// answers to plain DNS resolvers (section 6.7).
	hostTTL   = 120
	otherTTL  = 4500
	legacyTTL = 10
)

var (
	serviceName     = name{"_bitboxbase", "_tcp", "local"}
	enumerationName = name{"_services", "_dns-sd", "_udp", "local"} // RFC 6763, section 9
)

// query is a message with questions.
type query struct {
	id        uint16
	questions []question
}

// packQuery returns the question for all Bases. It does not ask for a unicast answer (the top bit
// of the class, RFC 6762, section 5.4): that could pass a filter that would drop it otherwise.
func packQuery() []byte {
	return question{serviceName, typePTR, classInternet}.append(appendHeader(nil, header{questions: 1}))
}

// parseQuery reads the questions of a message; ok is false if it is not a query.
func parseQuery(message []byte) (q query, ok bool) {
	r := reader{message: message}
	h, err := r.header()
	if err != nil || h.flags&(flagResponse|maskOpcode) != 0 {
		return query{}, false
	}
	q.id = h.id
	for range min(h.questions, maxQuestions) {
		asked, err := r.question()
		if err != nil {
			break // damage: the part read so far counts
		}
		q.questions = append(q.questions, asked)
	}
	return q, len(q.questions) > 0
}

// service is an announcement in the form of DNS records.
type service struct {
	instance name // "BitBox Base._bitboxbase._tcp.local"
	host     name // "base-1f2e3d4c.local"
	port     uint16
	txt      announcement.TXT
}

func newService(a Announcement) (service, error) {
	if err := noiseconn.CheckName(a.Instance); err != nil {
		return service{}, fmt.Errorf("announce a Base: its name: %w", err)
	}
	s := service{instance: append(name{a.Instance}, serviceName...), port: a.Port, txt: a.TXT}
	// Not the name of the machine, which is private.
	s.host = name{fmt.Sprintf("base-%x", a.TXT.Nonce[:4]), "local"}
	if !s.instance.fits() {
		return service{}, fmt.Errorf("announce a Base named %q: the name is too long for DNS", a.Instance)
	}
	return s, nil
}

// asks tells whether one of the questions is for this service.
func (s service) asks(q query) (yes, enumeration bool) {
	for _, question := range q.questions {
		is := func(types ...uint16) bool {
			for _, typ := range types {
				if question.typ == typ || question.typ == typeAny {
					return true
				}
			}
			return false
		}
		switch {
		case question.name.equal(enumerationName):
			enumeration = enumeration || is(typePTR)
		case question.name.equal(serviceName):
			yes = yes || is(typePTR)
		case question.name.equal(s.instance):
			yes = yes || is(typeSRV, typeTXT)
		case question.name.equal(s.host):
			yes = yes || is(typeA, typeAAAA)
		}
	}
	return yes, enumeration
}

// answer describes a response.
type answer struct {
	// legacy is the question of a plain DNS resolver, which the answer repeats (RFC 6762, section
	// 6.7); nil for an answer to the group.
	legacy *query
	// goodbye withdraws the records (section 10.1).
	goodbye bool
	// enumeration adds the record that lists this type of service.
	enumeration bool
}

// pack returns the whole service as one message, so that a receiver needs no other. The addresses
// are those of the interface that it is sent on.
func (s service) pack(a answer, addresses []netip.Addr) []byte {
	var records []resource
	add := func(n name, typ uint16, ttl uint32, unique bool, data []byte) {
		r := resource{name: n, typ: typ, class: classInternet, ttl: ttl, data: data}
		switch {
		case a.goodbye:
			r.ttl = 0
		case a.legacy != nil:
			r.ttl = legacyTTL
		}
		if unique && a.legacy == nil {
			r.class |= classFlush
		}
		records = append(records, r)
	}
	if a.enumeration {
		add(enumerationName, typePTR, otherTTL, false, appendName(nil, serviceName))
	}
	add(serviceName, typePTR, otherTTL, false, appendName(nil, s.instance))
	add(s.instance, typeSRV, hostTTL, true, srvData(s.host, s.port))
	add(s.instance, typeTXT, otherTTL, true, txtData(s.txt.Strings()))
	for _, address := range addresses {
		if address.Is4() {
			add(s.host, typeA, hostTTL, true, address.AsSlice())
		} else {
			add(s.host, typeAAAA, hostTTL, true, address.AsSlice())
		}
	}
	h := header{flags: flagResponse | flagAuthoritative, answers: len(records)}
	var questions []question
	if a.legacy != nil {
		h.id, h.questions, questions = a.legacy.id, len(a.legacy.questions), a.legacy.questions
	}
	message := appendHeader(nil, h)
	for _, q := range questions {
		message = q.append(message)
	}
	for _, r := range records {
		message = r.append(message)
	}
	return message
}

// parseResponse returns the Bases that one message describes completely. The zone, for link-local
// addresses, is the name of the interface it came in on; without a zone they are dropped.
// Loopback addresses count only in a local message, which came from this machine through the
// loopback interface.
//
// Records of different messages are not combined: a stranger's record must not change what a Base
// said, and a Base says everything in one message.
func parseResponse(message []byte, zone string, local bool) []Found {
	in := reader{message: message}
	h, err := in.header()
	if err != nil || h.flags&flagResponse == 0 {
		return nil
	}
	for range h.questions {
		if _, err := in.question(); err != nil {
			return nil
		}
	}
	r := records{message: message, srv: map[string]srvRecord{}, txt: map[string]announcement.TXT{}, addresses: map[string][]netip.Addr{}}
	for n := range min(h.answers+h.authorities+h.additional, maxRecords) {
		record, err := in.resource()
		if err != nil {
			break // damage: the part read so far counts
		}
		if answer := n < h.answers || n >= h.answers+h.authorities; answer {
			r.take(record)
		}
	}

	var found []Found
	for _, key := range r.order {
		srv := r.srv[key]
		txt, hasTXT := r.txt[key]
		host := strings.Join(srv.host, ".")
		if !hasTXT || srv.port == 0 || !isHostName(host) {
			continue
		}
		f := Found{Instance: srv.instance, Host: host, TXT: txt}
		for _, address := range r.addresses[srv.host.key()] {
			if address.Is6() && address.IsLinkLocalUnicast() {
				if zone == "" {
					continue
				}
				address = address.WithZone(zone)
			}
			if address.IsLoopback() && !local {
				continue
			}
			f.Addrs = append(f.Addrs, netip.AddrPortFrom(address, srv.port))
		}
		if len(f.Addrs) > 0 {
			found = append(found, f)
		}
	}
	return found
}

// records are the records of one message, by the key of their instance's or host's name.
type records struct {
	message   []byte
	order     []string // instances in the order of their SRV records
	srv       map[string]srvRecord
	txt       map[string]announcement.TXT
	addresses map[string][]netip.Addr
}

type srvRecord struct {
	instance string // for people
	host     name
	port     uint16
}

func (r *records) take(x resource) {
	// A time to live of 0 is a goodbye. It is ignored: forging one would be free, and a Base that
	// is gone does not answer anyway.
	if x.ttl == 0 || x.class&^classFlush != classInternet {
		return
	}
	key := x.name.key()
	switch x.typ {
	case typeSRV:
		instance, ok := instanceOf(x.name)
		_, twice := r.srv[key]
		if host, port, err := x.srv(r.message); ok && !twice && err == nil {
			r.order = append(r.order, key)
			r.srv[key] = srvRecord{instance, host, port}
		}
	case typeTXT:
		if list, err := x.txt(); err == nil {
			if txt, err := announcement.Parse(list); err == nil {
				r.txt[key] = txt
			}
		}
	case typeA, typeAAAA:
		if address, ok := netip.AddrFromSlice(x.data); ok && address.Is4() == (x.typ == typeA) {
			r.address(key, address.Unmap())
		}
	}
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func (r *records) address(host string, address netip.Addr) {
	if address.IsUnspecified() || address.IsMulticast() || address == broadcast {
		return
	}
	if hasRoom(r.addresses[host], address) {
		r.addresses[host] = append(r.addresses[host], address)
	}
}

// instanceOf returns the first label of a name that ends in the service type, in a form that
// people may be shown.
func instanceOf(n name) (string, bool) {
	if len(n) != 1+len(serviceName) || !n[1:].equal(serviceName) {
		return "", false
	}
	return shown(n[0]), true
}

// shown returns a label unchanged if people may be shown it; otherwise it escapes invisible and
// control characters. A Base is found whatever its name is.
func shown(label string) string {
	if noiseconn.CheckName(label) == nil {
		return label
	}
	quoted := strconv.QuoteToGraphic(label)
	if !utf8.ValidString(label) || noiseconn.CheckName(quoted[1:len(quoted)-1]) != nil {
		quoted = strconv.QuoteToASCII(label)
	}
	return quoted[1 : len(quoted)-1]
}

// isHostName accepts only what every resolver accepts: letters, digits, hyphens and dots, at most
// 253 bytes.
func isHostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_':
		default:
			return false
		}
	}
	return true
}
