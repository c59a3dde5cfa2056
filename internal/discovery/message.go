package discovery

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
)

const (
	serviceName     = ServiceType + ".local."
	enumerationName = "_services._dns-sd._udp.local." // RFC 6763, section 9

	// maxMessage is the largest multicast DNS message in bytes (RFC 6762, section 17).
	maxMessage = 9000
	// maxRecords is how many records of one message are looked at. A Base's
	// answer has 3 and one for each address.
	maxRecords = 64
	// maxQuestions is how many questions of one message are looked at.
	maxQuestions = 16

	// The times to live in seconds that RFC 6762, section 10 recommends, for
	// records with a host name in them and for others; and the bound for
	// answers to plain DNS resolvers (section 6.7).
	hostTTL   = 120
	otherTTL  = 4500
	legacyTTL = 10

	// classFlush marks a record whose older versions a cache should forget (RFC 6762, section 10.2).
	classFlush = dnsmessage.Class(1 << 15)
)

// query is a message with questions.
type query struct {
	id        uint16
	questions []dnsmessage.Question
}

// packQuery returns the question for all Bases.
func packQuery() []byte {
	message := dnsmessage.Message{Questions: []dnsmessage.Question{{
		Name:  dnsmessage.MustNewName(serviceName),
		Type:  dnsmessage.TypePTR,
		Class: dnsmessage.ClassINET,
	}}}
	packed, err := message.Pack()
	if err != nil {
		panic("pack a constant question: " + err.Error())
	}
	return packed
}

// parseQuery reads the questions of a message; ok is false if it is none.
func parseQuery(message []byte) (q query, ok bool) {
	var p dnsmessage.Parser
	header, err := p.Start(message)
	if err != nil || header.Response || header.OpCode != 0 {
		return query{}, false
	}
	q.id = header.ID
	for len(q.questions) < maxQuestions {
		question, err := p.Question()
		if err != nil {
			break // the end, or damage: what was read so far counts
		}
		q.questions = append(q.questions, question)
	}
	return q, len(q.questions) > 0
}

// service is an announcement in the form of DNS records.
type service struct {
	instance dnsmessage.Name // "BitBox Base._bitboxbase._tcp.local."
	host     dnsmessage.Name // "base-1f2e3d4c.local."
	port     uint16
	txt      TXT
}

func newService(a Announcement) (service, error) {
	if err := noiseconn.CheckName(a.Instance); err != nil {
		return service{}, fmt.Errorf("announce a Base: its name: %w", err)
	}
	instance, err := dnsmessage.NewName(strings.ReplaceAll(a.Instance, ".", "-") + "." + serviceName)
	if err != nil {
		return service{}, fmt.Errorf("announce a Base named %q: %w", a.Instance, err)
	}
	// Not the name of the machine, which is nobody's business.
	host, err := dnsmessage.NewName(fmt.Sprintf("base-%x.local.", a.TXT.Nonce[:4]))
	if err != nil {
		return service{}, fmt.Errorf("announce a Base: its host name: %w", err)
	}
	return service{instance: instance, host: host, port: a.Port, txt: a.TXT}, nil
}

// asks tells whether one of the questions is for this service.
func (s service) asks(q query) (yes, enumeration bool) {
	for _, question := range q.questions {
		name := question.Name.String()
		any := question.Type == dnsmessage.TypeALL
		switch {
		case strings.EqualFold(name, enumerationName):
			enumeration = enumeration || any || question.Type == dnsmessage.TypePTR
		case strings.EqualFold(name, serviceName):
			yes = yes || any || question.Type == dnsmessage.TypePTR
		case strings.EqualFold(name, s.instance.String()):
			yes = yes || any || question.Type == dnsmessage.TypeSRV || question.Type == dnsmessage.TypeTXT
		case strings.EqualFold(name, s.host.String()):
			yes = yes || any || question.Type == dnsmessage.TypeA || question.Type == dnsmessage.TypeAAAA
		}
	}
	return yes, enumeration
}

// answer says what a response is for.
type answer struct {
	// legacy is the question of a plain DNS resolver, which is repeated in the
	// answer (RFC 6762, section 6.7); nil for an answer to the group.
	legacy *query
	// goodbye takes the records back (section 10.1).
	goodbye bool
	// enumeration adds that there is a service of this type at all.
	enumeration bool
}

// pack returns the whole service as one message, so that who hears it needs to
// hear nothing else. The addresses are those of the interface it is sent on.
func (s service) pack(a answer, addresses []netip.Addr) ([]byte, error) {
	message := dnsmessage.Message{Header: dnsmessage.Header{Response: true, Authoritative: true}}
	header := func(name dnsmessage.Name, ttl uint32, unique bool) dnsmessage.ResourceHeader {
		h := dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: ttl}
		switch {
		case a.goodbye:
			h.TTL = 0
		case a.legacy != nil:
			h.TTL = legacyTTL
		}
		if unique && a.legacy == nil {
			h.Class |= classFlush
		}
		return h
	}
	if a.legacy != nil {
		message.ID = a.legacy.id
		message.Questions = a.legacy.questions
	}

	var records []dnsmessage.Resource
	add := func(h dnsmessage.ResourceHeader, body dnsmessage.ResourceBody) {
		records = append(records, dnsmessage.Resource{Header: h, Body: body})
	}
	serviceType := dnsmessage.MustNewName(serviceName)
	if a.enumeration {
		add(header(dnsmessage.MustNewName(enumerationName), otherTTL, false), &dnsmessage.PTRResource{PTR: serviceType})
	}
	add(header(serviceType, otherTTL, false), &dnsmessage.PTRResource{PTR: s.instance})
	add(header(s.instance, hostTTL, true), &dnsmessage.SRVResource{Target: s.host, Port: s.port})
	add(header(s.instance, otherTTL, true), &dnsmessage.TXTResource{TXT: s.txt.Strings()})
	for _, address := range addresses {
		if address.Is4() {
			add(header(s.host, hostTTL, true), &dnsmessage.AResource{A: address.As4()})
		} else {
			add(header(s.host, hostTTL, true), &dnsmessage.AAAAResource{AAAA: address.As16()})
		}
	}
	message.Answers = records
	packed, err := message.Pack()
	if err != nil {
		return nil, fmt.Errorf("pack an announcement: %w", err)
	}
	return packed, nil
}

// parseResponse returns the Bases that one message describes wholly. The zone
// is the name of the interface it came in on, for link-local addresses; without
// one they are left out. Loopback addresses count only in a local message, one
// that came from this machine by the loopback interface.
//
// Records of different messages are not put together: a stranger's record must
// not change what a Base said, and a Base says all in one message.
func parseResponse(message []byte, zone string, local bool) []Found {
	var p dnsmessage.Parser
	header, err := p.Start(message)
	if err != nil || !header.Response {
		return nil
	}
	if err := p.SkipAllQuestions(); err != nil {
		return nil
	}
	r := records{srv: map[string]dnsmessage.SRVResource{}, txt: map[string]TXT{}, addresses: map[string][]netip.Addr{}}
	r.read(&p, p.AnswerHeader, p.SkipAnswer)
	// Where the answers end early, so do these.
	if p.SkipAllAuthorities() == nil {
		r.read(&p, p.AdditionalHeader, p.SkipAdditional)
	}

	var found []Found
	for _, name := range r.order {
		srv, hasSRV := r.srv[name]
		txt, hasTXT := r.txt[name]
		if !hasSRV || !hasTXT || srv.Port == 0 {
			continue
		}
		host := strings.TrimSuffix(srv.Target.String(), ".")
		if !isHostName(host) {
			continue
		}
		f := Found{Instance: name, Host: host, TXT: txt}
		for _, address := range r.addresses[strings.ToLower(srv.Target.String())] {
			if address.Is6() && address.IsLinkLocalUnicast() {
				if zone == "" {
					continue
				}
				address = address.WithZone(zone)
			}
			if address.IsLoopback() && !local {
				continue
			}
			f.Addrs = append(f.Addrs, netip.AddrPortFrom(address, srv.Port))
		}
		if len(f.Addrs) > 0 {
			found = append(found, f)
		}
	}
	return found
}

// records are those of one message, by instance or by host.
type records struct {
	count     int
	order     []string // instances in the order of their SRV records
	srv       map[string]dnsmessage.SRVResource
	txt       map[string]TXT
	addresses map[string][]netip.Addr
}

// read takes one section of a message, to its end, to the first damage, or until
// maxRecords of the message were seen.
func (r *records) read(p *dnsmessage.Parser, next func() (dnsmessage.ResourceHeader, error), skip func() error) {
	for ; r.count < maxRecords; r.count++ {
		header, err := next()
		if err != nil {
			return
		}
		// A time to live of 0 is a goodbye. Forged ones would be free, and a Base
		// that is gone does not answer anyway.
		if header.TTL == 0 || header.Class&^classFlush != dnsmessage.ClassINET {
			if skip() != nil {
				return
			}
			continue
		}
		switch header.Type {
		case dnsmessage.TypeSRV:
			body, err := p.SRVResource()
			if err != nil {
				return
			}
			if name, ok := instanceOf(header.Name.String()); ok {
				if _, twice := r.srv[name]; !twice {
					r.order = append(r.order, name)
					r.srv[name] = body
				}
			}
		case dnsmessage.TypeTXT:
			body, err := p.TXTResource()
			if err != nil {
				return
			}
			if name, ok := instanceOf(header.Name.String()); ok {
				if txt, err := ParseTXT(body.TXT); err == nil {
					r.txt[name] = txt
				}
			}
		case dnsmessage.TypeA:
			body, err := p.AResource()
			if err != nil {
				return
			}
			r.address(header.Name.String(), netip.AddrFrom4(body.A))
		case dnsmessage.TypeAAAA:
			body, err := p.AAAAResource()
			if err != nil {
				return
			}
			r.address(header.Name.String(), netip.AddrFrom16(body.AAAA).Unmap())
		default:
			if skip() != nil {
				return
			}
		}
	}
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func (r *records) address(host string, address netip.Addr) {
	if address.IsUnspecified() || address.IsMulticast() || address == broadcast {
		return
	}
	host = strings.ToLower(host)
	if len(r.addresses[host]) < MaxAddresses {
		r.addresses[host] = append(r.addresses[host], address)
	}
}

// instanceOf returns the first label of a name that ends in the service type,
// if people may be shown it.
func instanceOf(name string) (string, bool) {
	cut := len(name) - len("."+serviceName)
	if cut < 1 || !strings.EqualFold(name[cut:], "."+serviceName) {
		return "", false
	}
	instance := name[:cut]
	if strings.Contains(instance, ".") || noiseconn.CheckName(instance) != nil {
		return "", false
	}
	return instance, true
}

// isHostName accepts what every resolver does: letters, digits, hyphens and
// dots, at most 253 bytes.
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
