package journal

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
)

// maxText is the longest text of one entry, in bytes.
const maxText = 4 << 10

// record is one entry of the journal in journalctl's format (systemd.journal-fields(7)). A field
// may be text, a list of numbers (bytes that are not text), a list of either (the field occurs
// several times, see fields) or null, if it is too long.
type record struct {
	Message   *fields `json:"MESSAGE"`
	Priority  field   `json:"PRIORITY"`
	Unit      field   `json:"_SYSTEMD_UNIT"`
	Of        field   `json:"UNIT"`
	Object    field   `json:"OBJECT_SYSTEMD_UNIT"`
	PID       field   `json:"_PID"`
	Realtime  field   `json:"__REALTIME_TIMESTAMP"`
	Cursor    field   `json:"__CURSOR"`
	Microtime int64   `json:"-"`
}

// fields are all texts of a field, joined by line breaks.
type fields string

// UnmarshalJSON implements json.Unmarshaler.
func (t *fields) UnmarshalJSON(b []byte) error {
	all := []json.RawMessage{b}
	var numbers []uint16
	if len(b) > 0 && b[0] == '[' && json.Unmarshal(b, &numbers) != nil {
		if err := json.Unmarshal(b, &all); err != nil {
			all = nil
		}
	}
	var parts []string
	for _, one := range all {
		var f field
		if err := f.UnmarshalJSON(one); err != nil {
			return err
		}
		parts = append(parts, string(f))
	}
	*t = fields(strings.Join(parts, "\n"))
	return nil
}

// ownTime is the time that our programs write before each line, for people who run them at a
// terminal. The journal has its own time for each entry.
var ownTime = regexp.MustCompile(`^time=\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d) `)

// field is its text, or the first of several.
type field string

// UnmarshalJSON implements json.Unmarshaler.
func (f *field) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) == nil {
		*f = field(text) // null too
		return nil
	}
	var octets []uint8
	var numbers []uint16 // encoding/json takes []uint8 for base64
	if json.Unmarshal(b, &numbers) == nil {
		for _, n := range numbers {
			octets = append(octets, byte(n))
		}
		*f = field(octets)
		return nil
	}
	var several []json.RawMessage
	if err := json.Unmarshal(b, &several); err != nil || len(several) == 0 {
		*f = ""
		return nil
	}
	if several[0][0] == '[' && json.Unmarshal(several[0], &numbers) != nil {
		return nil // deeper lists do not occur
	}
	return f.UnmarshalJSON(several[0])
}

// parseRecord reads one line of journalctl.
func parseRecord(line []byte) (record, error) {
	var r record
	if err := json.Unmarshal(line, &r); err != nil {
		return r, err
	}
	var err error
	r.Microtime, err = strconv.ParseInt(string(r.Realtime), 10, 64)
	return r, err
}

// priority is 6 (info) for an entry without one, as in systemd.
func (r record) priority() uint32 {
	if len(r.Priority) == 1 && r.Priority[0] >= '0' && r.Priority[0] <= '7' {
		return uint32(r.Priority[0] - '0')
	}
	return 6
}
