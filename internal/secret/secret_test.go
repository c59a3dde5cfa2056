package secret_test

import (
	"bytes"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log"
	"log/slog"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
)

type kind struct{}

// holder has the key in the two ways of a careless struct: exported, where fmt calls its methods,
// and unexported, where fmt uses reflection.
type holder struct {
	Open   secret.Key[kind]
	hidden secret.Key[kind]
}

func testKey(t *testing.T) (secret.Key[kind], []string) {
	t.Helper()
	raw := bytes.Repeat([]byte{0xc7}, secret.Size)
	k, err := secret.New[kind](raw)
	if err != nil {
		t.Fatal(err)
	}
	return k, []string{hex.EncodeToString(raw)[:8], "199 199", "0xc7", string(raw[:4]), "C7C7", "x8fH"}
}

func TestNoWayOfPrintingShowsAKey(t *testing.T) {
	k, traces := testKey(t)
	h := holder{k, k}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%t"} {
		for _, value := range []any{k, &k, h, &h, []secret.Key[kind]{k}, map[string]holder{"a": h}, struct{ in holder }{h}} {
			fmt.Fprintf(&out, verb+"\n", value)
		}
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "k", k, "h", h, "p", &h)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "k", k, "h", h, "p", &h)
	log.New(&out, "", 0).Println(k, h, &h)
	fmt.Fprintln(&out, fmt.Errorf("wrapped: %v %w", h, fmt.Errorf("%v", k)))
	for _, trace := range traces {
		if strings.Contains(out.String(), trace) {
			t.Errorf("printed output contains %q", trace)
		}
	}
}

// The same search finds the bytes of a plain array, so the search can fail.
func TestTheSearchForTracesFindsAPlainArray(t *testing.T) {
	k, traces := testKey(t)
	plain := struct{ b [secret.Size]byte }{[secret.Size]byte(k.Expose())}
	if out := fmt.Sprintf("%v", plain); !strings.Contains(out, traces[1]) {
		t.Fatalf("%q not found in %q", traces[1], out)
	}
}

func TestNoMarshallerTakesAKey(t *testing.T) {
	k, traces := testKey(t)
	var out bytes.Buffer
	if err := json.NewEncoder(&out).Encode(holder{Open: k}); err == nil {
		t.Error("encoding/json accepted a key")
	}
	if err := gob.NewEncoder(&out).Encode(k); err == nil {
		t.Error("encoding/gob accepted a key")
	}
	if err := xml.NewEncoder(&out).Encode(k); err == nil {
		t.Error("encoding/xml accepted a key")
	}
	for _, trace := range traces {
		if strings.Contains(out.String(), trace) {
			t.Errorf("marshalled output contains %q", trace)
		}
	}
}

func TestKeyEdges(t *testing.T) {
	k, _ := testKey(t)
	if _, err := secret.New[kind](make([]byte, secret.Size)); err == nil {
		t.Error("zeros were accepted as a key")
	}
	if _, err := secret.New[kind](make([]byte, secret.Size-1)); err == nil {
		t.Error("a short key was accepted")
	}
	var empty secret.Key[kind]
	if empty.Equal(empty) || empty.Equal(k) || k.Equal(empty) {
		t.Error("an empty key equals something")
	}
	same, err := secret.New[kind](k.Expose())
	if err != nil || !same.Equal(k) {
		t.Errorf("a copy is not equal: %v", err)
	}
	if _, err := secret.Generate[kind](strings.NewReader("short")); err == nil {
		t.Error("a short read made a key")
	}
	k.Wipe()
	if same.Equal(k) || !bytes.Equal(k.Expose(), make([]byte, secret.Size)) {
		t.Error("wipe left bytes")
	}
}
