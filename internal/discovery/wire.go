package discovery

import (
	"encoding/binary"
	"errors"
	"slices"
)

// Messages of DNS (RFC 1035, section 4), as far as multicast DNS needs them here. The library
// golang.org/x/net/dns/dnsmessage refuses a whole message if a label contains a dot, which the
// name of a service may (RFC 6763, section 4.1.1).

// Types and classes.
const (
	typeA    = 1
	typePTR  = 12
	typeTXT  = 16
	typeAAAA = 28
	typeSRV  = 33
	typeAny  = 255

	classInternet = 1
	// classFlush marks a record whose older versions a cache should forget (RFC 6762, section 10.2).
	classFlush = 1 << 15
)

const (
	headerSize = 12
	// flagResponse and flagAuthoritative are bits of the header's flags, maskOpcode
	// selects the kind of a message, 0 for a standard one.
	flagResponse      = 1 << 15
	flagAuthoritative = 1 << 10
	maskOpcode        = 0xf << 11

	maxLabel = 63  // bytes
	maxName  = 255 // bytes, with the lengths of labels
	// maxJumps bounds the pointers of one name: a loop of them would never end.
	maxJumps = 16
)

// name is a domain name as its labels, without the root. A label is any bytes, including dots.
type name []string

// key is the same for equal names: ASCII letters are equal in either case, and no others (RFC
// 6762, section 16).
func (n name) key() string {
	wire := appendName(nil, n)
	for i, c := range wire {
		if 'A' <= c && c <= 'Z' { // the length bytes of labels are below the letters
			wire[i] = c + 'a' - 'A'
		}
	}
	return string(wire)
}

func (n name) equal(other name) bool { return n.key() == other.key() }

// fits tells whether a name can be in a message.
func (n name) fits() bool {
	tooLong := func(label string) bool { return label == "" || len(label) > maxLabel }
	return !slices.ContainsFunc(n, tooLong) && len(appendName(nil, n)) <= maxName
}

// appendName writes a name that fits, uncompressed.
func appendName(b []byte, n name) []byte {
	for _, label := range n {
		b = append(append(b, byte(len(label))), label...)
	}
	return append(b, 0)
}

// errWire is the error for any invalid message.
var errWire = errors.New("not a message of DNS")

// reader reads a message from a position on.
type reader struct {
	message []byte
	at      int
}

func (r *reader) bytes(n int) ([]byte, error) {
	if n > len(r.message)-r.at {
		return nil, errWire
	}
	r.at += n
	return r.message[r.at-n : r.at], nil
}

func (r *reader) uint16() (uint16, error) {
	b, err := r.bytes(2)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint16(b), nil
}

func (r *reader) uint32() (uint32, error) {
	b, err := r.bytes(4)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(b), nil
}

// name reads a name, which may continue at an earlier position of the message (RFC 1035, section
// 4.1.4).
func (r *reader) name() (n name, err error) {
	end, jumps, size := -1, 0, 1
	for {
		length, err := r.bytes(1)
		if err != nil {
			return nil, err
		}
		switch c := int(length[0]); c & 0xc0 {
		case 0xc0:
			rest, err := r.bytes(1)
			if jumps++; err != nil || jumps > maxJumps {
				return nil, errWire
			}
			if end < 0 {
				end = r.at
			}
			r.at = c&0x3f<<8 | int(rest[0])
			if r.at > len(r.message) {
				return nil, errWire
			}
		case 0:
			if c == 0 {
				if end >= 0 {
					r.at = end
				}
				return n, nil
			}
			label, err := r.bytes(c)
			if size += 1 + c; err != nil || size > maxName {
				return nil, errWire
			}
			n = append(n, string(label))
		default:
			return nil, errWire
		}
	}
}

// header is the beginning of a message.
type header struct {
	id, flags                                   uint16
	questions, answers, authorities, additional int
}

func (r *reader) header() (h header, err error) {
	b, err := r.bytes(headerSize)
	if err != nil {
		return header{}, err
	}
	field := func(n int) uint16 { return binary.BigEndian.Uint16(b[2*n:]) }
	return header{field(0), field(1), int(field(2)), int(field(3)), int(field(4)), int(field(5))}, nil
}

func appendHeader(b []byte, h header) []byte {
	for _, field := range []uint16{h.id, h.flags, uint16(h.questions), uint16(h.answers), uint16(h.authorities), uint16(h.additional)} {
		b = binary.BigEndian.AppendUint16(b, field)
	}
	return b
}

// question is one question.
type question struct {
	name       name
	typ, class uint16
}

func (r *reader) question() (q question, err error) {
	if q.name, err = r.name(); err != nil {
		return question{}, err
	}
	if q.typ, err = r.uint16(); err != nil {
		return question{}, err
	}
	q.class, err = r.uint16()
	return q, err
}

func (q question) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(appendName(b, q.name), q.typ)
	return binary.BigEndian.AppendUint16(b, q.class)
}

// resource is one record.
type resource struct {
	name       name
	typ, class uint16
	ttl        uint32 // seconds
	// data is the content; names in it may point elsewhere in the message, in which it begins at
	// offset.
	data   []byte
	offset int
}

// resource reads a record, and moves to its end.
func (r *reader) resource() (x resource, err error) {
	q, err := r.question() // it begins in the same way
	if err != nil {
		return resource{}, err
	}
	x.name, x.typ, x.class = q.name, q.typ, q.class
	if x.ttl, err = r.uint32(); err != nil {
		return resource{}, err
	}
	length, err := r.uint16()
	if err != nil {
		return resource{}, err
	}
	x.offset = r.at
	x.data, err = r.bytes(int(length))
	return x, err
}

func (x resource) append(b []byte) []byte {
	b = question{x.name, x.typ, x.class}.append(b)
	b = binary.BigEndian.AppendUint32(b, x.ttl)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(x.data))), x.data...)
}

// srv returns where a service is (RFC 2782). message is the one that contains the record.
func (x resource) srv(message []byte) (target name, port uint16, err error) {
	if len(x.data) < 7 {
		return nil, 0, errWire
	}
	r := reader{message: message, at: x.offset + 6}
	if target, err = r.name(); err != nil || r.at != x.offset+len(x.data) {
		return nil, 0, errWire
	}
	return target, binary.BigEndian.Uint16(x.data[4:]), nil
}

func srvData(target name, port uint16) []byte {
	return appendName(binary.BigEndian.AppendUint16([]byte{0, 0, 0, 0}, port), target)
}

// txt returns the strings of a TXT record.
func (x resource) txt() (list []string, err error) {
	r := reader{message: x.data}
	for r.at < len(x.data) {
		length, err := r.bytes(1)
		if err != nil {
			return nil, err
		}
		text, err := r.bytes(int(length[0]))
		if err != nil {
			return nil, err
		}
		list = append(list, string(text))
	}
	return list, nil
}

// txtData writes strings of at most 255 bytes each.
func txtData(list []string) (b []byte) {
	for _, text := range list {
		b = append(append(b, byte(len(text))), text...)
	}
	return b
}
