package nodetest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
)

// Answers answers each question of a batch by the next line of a text, again
// from the beginning when it is used up. A line is a result; one that begins with ! is an error.
type Answers string

// Post is one for jsonrpc.Config.
func (a Answers) Post(body []byte) ([]byte, error) {
	var questions []struct {
		ID int `json:"id"`
	}
	if err := json.Unmarshal(body, &questions); err != nil {
		return nil, err
	}
	lines := strings.Split(string(a), "\n")
	var replies []string
	for i, q := range questions {
		line, kind := lines[i%len(lines)], "result"
		if rest, refused := strings.CutPrefix(line, "!"); refused {
			line, kind = rest, "error"
		}
		replies = append(replies, fmt.Sprintf(`{"id":%d,%q:%s}`, q.ID, kind, line))
	}
	return []byte("[" + strings.Join(replies, ",") + "]"), nil
}

// CheckLook fails a test if what was taken from a node is not bounded and printable.
func CheckLook(t *testing.T, look *node.Look) {
	t.Helper()
	if len(look.Peers) > node.MaxPeers || len(look.Node.GetWarnings()) > node.MaxWarnings {
		t.Errorf("%d peers, %d warnings", len(look.Peers), len(look.Node.GetWarnings()))
	}
	CheckMessage(t, look.Node)
	for _, p := range look.Peers {
		CheckMessage(t, p)
	}
	CheckMessage(t, look.Fees)
	if look.Progress > 1 || look.Progress != look.Progress {
		t.Errorf("the progress is %v", look.Progress)
	}
	// Whatever it is, it can be shown.
	if _, err := proto.Marshal(look.Node); err != nil {
		t.Error(err)
	}
}

// CheckBlocks is CheckLook for blocks.
func CheckBlocks(t *testing.T, blocks []*basev1.Block) {
	t.Helper()
	for _, b := range blocks {
		CheckMessage(t, b)
	}
}

// CheckMessage fails a test if a message has a text that is long or not printable, or a time
// that is none.
func CheckMessage(t *testing.T, message proto.Message) {
	t.Helper()
	const most = 256
	var check func(m protoreflect.Message)
	text := func(s string) {
		if len(s) > most || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("a text is %.80q, %d bytes", s, len(s))
		}
	}
	check = func(m protoreflect.Message) {
		m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
			switch {
			case field.IsList() && field.Kind() == protoreflect.StringKind:
				for i := range value.List().Len() {
					text(value.List().Get(i).String())
				}
			case field.IsList():
				for i := range value.List().Len() {
					check(value.List().Get(i).Message())
				}
			case field.Kind() == protoreflect.StringKind:
				text(value.String())
			case field.Kind() == protoreflect.MessageKind:
				if at, ok := value.Message().Interface().(interface{ AsTime() time.Time }); ok && at.AsTime().Year() > 9999 {
					t.Errorf("a time is %v", at.AsTime())
				}
				check(value.Message())
			}
			return true
		})
	}
	check(message.ProtoReflect())
}
