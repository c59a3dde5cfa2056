package jsonrpc

import (
	"bytes"
	"encoding/json"
)

// Texts is a list of texts, as Core has written warnings since version 28, or one text.
type Texts []string

// UnmarshalJSON takes both forms.
func (t *Texts) UnmarshalJSON(b []byte) error {
	if b = bytes.TrimSpace(b); len(b) > 0 && b[0] == '"' {
		var one string
		err := json.Unmarshal(b, &one)
		*t = Texts{one}
		return err
	}
	return json.Unmarshal(b, (*[]string)(t))
}

// count is how many entries a list has; nothing else is kept of it.
type count uint32

// UnmarshalJSON counts.
func (c *count) UnmarshalJSON(b []byte) error {
	var entries []json.RawMessage
	err := json.Unmarshal(b, &entries)
	*c = count(len(entries))
	return err
}
