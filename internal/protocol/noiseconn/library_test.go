package noiseconn

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flynn/noise"
)

// vector is one block of the library's vectors.txt: key=value lines.
type vector map[string]string

func (v vector) bytes(key string) []byte { return must(hex.DecodeString(v[key])) }

// libraryVectors reads the vectors of one protocol out of the library's module.
func libraryVectors(t *testing.T, protocol string) (vectors []vector) {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/flynn/noise").Output()
	if err != nil {
		t.Fatalf("ask the go command where the Noise library is: %v", err)
	}
	file, err := os.Open(filepath.Join(strings.TrimSpace(string(dir)), "vectors.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	current := vector{}
	keep := func() {
		if current["handshake"] == protocol {
			vectors = append(vectors, current)
		}
		current = vector{}
	}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), "="); ok {
			current[key] = value
		} else {
			keep()
		}
	}
	keep()
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return vectors
}

// The library's own vectors, through our wrapper, our X25519, our cipher and our
// records: prologue, payloads and psk are the vectors', all else is what a Base
// and an App run.
func TestTheLibrarysVectorsPassThroughOurChannel(t *testing.T) {
	for _, suite := range []suiteParameters{pairSuite, connectSuite} {
		protocol := fmt.Sprintf("Noise_%spsk%d_25519_ChaChaPoly_SHA256", suite.pattern.Name, suite.pskPlacement)
		t.Run(protocol, func(t *testing.T) {
			vectors := libraryVectors(t, protocol)
			if len(vectors) != 4 {
				t.Fatalf("found %d vectors", len(vectors))
			}
			for i, v := range vectors {
				t.Run(fmt.Sprint(i), func(t *testing.T) { runLibraryVector(t, suite, v) })
			}
		})
	}
}

// A vector that was changed does not pass, so the test above compares something.
func TestAChangedVectorDoesNotPass(t *testing.T) {
	for _, key := range []string{"msg_0_ciphertext", "msg_1_ciphertext", "msg_2_ciphertext", "msg_3_ciphertext", "preshared_key", "prologue"} {
		v := libraryVectors(t, "Noise_IKpsk2_25519_ChaChaPoly_SHA256")[3]
		changed := v.bytes(key)
		changed[0] ^= 1
		v[key] = hex.EncodeToString(changed)
		if checkLibraryVector(connectSuite, v) == nil {
			t.Errorf("a vector with another %s passes", key)
		}
	}
}

func runLibraryVector(t *testing.T, suite suiteParameters, v vector) {
	if err := checkLibraryVector(suite, v); err != nil {
		t.Error(err)
	}
}

func checkLibraryVector(suite suiteParameters, v vector) error {
	suite.prologue = string(v.bytes("prologue"))
	initStatic, respStatic := must(ParseStatic(v.bytes("init_static"))), must(ParseStatic(v.bytes("resp_static")))
	var known []byte
	if suite.pattern.Name == noise.HandshakeIK.Name {
		known = must(PublicOf(respStatic)).bytes()
	}
	sides := [2]*handshake{
		must(newHandshake(suite, true, bytes.NewReader(v.bytes("gen_init_ephemeral")), initStatic, known)),
		must(newHandshake(suite, false, bytes.NewReader(v.bytes("gen_resp_ephemeral")), respStatic, nil)),
	}
	for _, side := range sides {
		if err := side.setPSK(v.bytes("preshared_key")); err != nil {
			return err
		}
	}
	number := 0
	for ; number < len(suite.pattern.Messages); number++ {
		writer, reader := sides[number%2], sides[1-number%2]
		payload, want := v.bytes(fmt.Sprintf("msg_%d_payload", number)), v.bytes(fmt.Sprintf("msg_%d_ciphertext", number))
		message, err := writer.write(nil, payload)
		if err != nil || !bytes.Equal(message, want) {
			return fmt.Errorf("message %d is %x, %v", number, message, err)
		}
		read, err := reader.read(message, len(want))
		if err != nil || !bytes.Equal(read, payload) {
			return fmt.Errorf("the payload of message %d is read as %x, %v", number, read, err)
		}
	}
	return checkVectorRecords(v, number, sides[0].result, sides[1].result)
}

// checkVectorRecords sends what follows the handshake by turns, the initiator
// first.
func checkVectorRecords(v vector, number int, initiator, responder *Transport) error {
	if initiator.HandshakeHash != responder.HandshakeHash {
		return fmt.Errorf("the handshake hashes are %x and %x", initiator.HandshakeHash, responder.HandshakeHash)
	}
	var wires [2]bytes.Buffer // what each side has sent
	conns := [2]*Conn{
		NewConn(&streamConn{Reader: &wires[1], Writer: &wires[0]}, initiator),
		NewConn(&streamConn{Reader: &wires[0], Writer: &wires[1]}, responder),
	}
	for turn := range 2 {
		payload, want := v.bytes(fmt.Sprintf("msg_%d_payload", number+turn)), v.bytes(fmt.Sprintf("msg_%d_ciphertext", number+turn))
		if err := conns[turn].WriteRecord(payload); err != nil {
			return err
		}
		if sent := wires[turn].Bytes(); !bytes.Equal(sent[recordHeaderSize:], want) || int(sent[0])<<8|int(sent[1]) != len(want) {
			return fmt.Errorf("record %d is %x", turn, sent)
		}
		if read, err := conns[1-turn].ReadRecord(); err != nil || !bytes.Equal(read, payload) {
			return fmt.Errorf("record %d is read as %x, %v", turn, read, err)
		}
	}
	return nil
}
