package noiseconn

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var printVerbs = []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%t"}

// traces are how the bytes of a secret show when fmt prints them.
func traces(secret []byte) []string {
	secret = secret[:8]
	var decimal, gosyntax []string
	for _, b := range secret {
		decimal = append(decimal, fmt.Sprint(b))
		gosyntax = append(gosyntax, fmt.Sprintf("%#x", b))
	}
	return []string{
		string(secret), hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret)),
		strings.Join(decimal, " "), strings.Join(gosyntax, ", "),
	}
}

// printed is all the ways of printing a value: by itself, by pointer, and as a
// field where fmt goes by reflection and calls no method.
func printed(value any) string {
	var out bytes.Buffer
	for _, verb := range printVerbs {
		fmt.Fprintf(&out, verb+"\n", value)
		fmt.Fprintf(&out, verb+"\n", struct{ hidden any }{value})
		fmt.Fprintf(&out, verb+"\n", []any{value})
		v := reflect.ValueOf(value)
		if v.Kind() == reflect.Pointer {
			fmt.Fprintf(&out, verb+"\n", v.Elem().Interface())
		}
	}
	return out.String()
}

// inEveryState returns a value of each exported struct type while it holds as
// many secrets as it ever does, and the secrets.
func inEveryState(t *testing.T) (values map[string][]any, secretBytes [][]byte) {
	pairing, connecting := fixedSecrets("pairing"), fixedSecrets("connecting")
	for _, s := range []secrets{pairing, connecting} {
		_, _, kemSecret := s.kem()
		secretBytes = append(secretBytes, s.appStatic, s.baseStatic, s.appEphemeral, s.baseEphemeral,
			s.kemSeed, s.kemSeed[32:], s.kemRandom, s.pair, kemSecret)
	}
	values = make(map[string][]any)
	add := func(name string, value any) { values[name] = append(values[name], value) }

	commitment := [32]byte{1}
	messages := referencePair(pairing, commitment[:], must(testPayload().Marshal()), rightPSK)
	connection := referenceConnect(connecting, 1, 0, rightPSK)
	secretBytes = append(secretBytes, messages.toApp, messages.toBase, connection.toApp, connection.toBase)
	secretBytes = append(secretBytes, must(MAC1KeyOf(connecting.pairKey())).Expose())

	add("StaticKey", pairing.app())
	add("PairInitiator", pairing.pairInitiator())
	app := pairing.pairInitiator()
	must(app.ReadP2(messages.p2))
	add("PairInitiator", app)
	add("PairResponder", must(pairing.pairResponder(messages.p1)))
	base := must(pairing.pairResponder(messages.p1))
	must(base.WriteP2(commitment))
	add("PairResponder", base)

	initiator := connecting.connectInitiator(1)
	add("ConnectInitiator", connecting.connectInitiator(1))
	add("ConnectResponder", must(connecting.connectResponder(connection.r1)))
	add("P3Payload", &P3Payload{}) // everything in them is sent to somebody unknown
	add("P4", &P4{})

	_, transport, err := initiator.ReadR2(connection.r2)
	if err != nil {
		t.Fatal(err)
	}
	add("Transport", transport)
	_, transport, err = connecting.connectInitiator(1).ReadR2(connection.r2)
	if err != nil {
		t.Fatal(err)
	}
	// A Conn that has decrypted a record whose reader took one byte of it.
	text := fixed("a secret text in a record", 64)
	raw := &streamConn{Reader: bytes.NewReader(referenceRecord(connection.toApp, 0, text))}
	conn := NewConn(raw, transport)
	if n, err := conn.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	secretBytes = append(secretBytes, text[1:])
	add("Conn", conn)
	return values, secretBytes
}

func TestNoExportedStructPrintsASecret(t *testing.T) {
	values, secretBytes := inEveryState(t)
	for name, list := range values {
		for _, value := range list {
			out := printed(value)
			for i, secret := range secretBytes {
				for _, trace := range traces(secret) {
					if strings.Contains(out, trace) {
						t.Errorf("%s prints the secret number %d, as %q", name, i, trace)
					}
				}
			}
		}
	}
}

// The control: without the function in between, the same search finds the keys.
func TestTheSearchFindsAKeyThatIsNotHidden(t *testing.T) {
	s := fixedSecrets("connecting")
	connection := referenceConnect(s, 1, 0, rightPSK)
	_, transport, err := s.connectInitiator(1).ReadR2(connection.r2)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]any{
		"a plain array":              struct{ key [32]byte }{[32]byte(connection.toBase)},
		"a cipher state behind a *":  struct{ send any }{transport.send()},
		"a cipher state by its own":  transport.send(),
		"a DecapsulationKey's bytes": struct{ seed []byte }{connection.toBase},
	} {
		out := printed(value)
		if !slices.ContainsFunc(traces(connection.toBase), func(trace string) bool { return strings.Contains(out, trace) }) {
			t.Errorf("%s: nothing found in %s", name, out)
		}
	}
}

// No exported struct may be added without being tried above.
func TestEveryExportedStructIsTriedForPrinting(t *testing.T) {
	values, _ := inEveryState(t)
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	inspect := func(node ast.Node) bool {
		spec, ok := node.(*ast.TypeSpec)
		if !ok || !spec.Name.IsExported() {
			return true
		}
		if _, ok := spec.Type.(*ast.StructType); ok {
			found++
			if values[spec.Name.Name] == nil {
				t.Errorf("%s is not tried", spec.Name.Name)
			}
		}
		return true
	}
	for _, source := range sources {
		if strings.HasSuffix(source, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), source, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, inspect)
	}
	if found == 0 {
		t.Error("no exported struct was found")
	}
}
