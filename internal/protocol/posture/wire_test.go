package posture

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// eachMessage calls visit with every message inside m, m included.
func eachMessage(m protoreflect.Message, visit func(protoreflect.Message)) {
	visit(m)
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if field.Message() != nil && field.IsList() {
			for i := range value.List().Len() {
				eachMessage(value.List().Get(i).Message(), visit)
			}
		} else if field.Message() != nil {
			eachMessage(value.Message(), visit)
		}
		return true
	})
}

func TestUnknownFieldsAreRefusedAtEveryDepth(t *testing.T) {
	doc := &systemv1.PostureDocument{Revision: 1, Posture: fullPosture().Proto()}
	if err := refuseUnknown(doc.ProtoReflect()); err != nil {
		t.Fatalf("a known document: %v", err)
	}
	places := 0
	eachMessage(doc.ProtoReflect(), func(m protoreflect.Message) {
		places++
		m.SetUnknown(unknownField)
		encoded := encode(doc)
		m.SetUnknown(nil)

		var strict, lenient systemv1.PostureDocument
		if err := readStrict(encoded, MaxDocumentSize, &strict); !errors.Is(err, ErrUnknownField) {
			t.Errorf("in a %s: %v", m.Descriptor().Name(), err)
		}
		if err := proto.Unmarshal(encoded, &lenient); err != nil {
			t.Errorf("the broken variant, that reads as protobuf does, refuses it as well: %v", err)
		}
	})
	if places != 8 {
		t.Errorf("%d places were tried, not the 8 messages of this document", places)
	}
}

// refuseUnknown does not look into maps; there must be none.
func TestNoMessageHasAMap(t *testing.T) {
	messages := systemv1.File_system_v1_posture_proto.Messages()
	for i := range messages.Len() {
		for j := range messages.Get(i).Fields().Len() {
			if field := messages.Get(i).Fields().Get(j); field.IsMap() {
				t.Errorf("%s is a map", field.FullName())
			}
		}
	}
}

func TestLargeMessagesAreNotRead(t *testing.T) {
	doc := &systemv1.PostureDocument{PreviousHash: make([]byte, MaxDocumentSize)}
	if err := read(encode(doc), MaxDocumentSize, &systemv1.PostureDocument{}); !errors.Is(err, ErrMalformed) {
		t.Errorf("got %v", err)
	}
}
