package walletcheck

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

func newCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}

// serve accepts connections at a port of this machine and hands each to do.
func serve(t *testing.T, do func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				do(conn)
			}()
		}
	}()
	return listener.Addr().String()
}

// answering is an Electrum server that answers a method with a text.
func answering(certificate tls.Certificate, answers map[string]string) func(net.Conn) {
	return func(raw net.Conn) {
		conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{certificate}})
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			var question struct {
				ID     int
				Method string
			}
			if json.Unmarshal(lines.Bytes(), &question) != nil {
				return
			}
			answer, known := answers[question.Method]
			if !known {
				return
			}
			_, _ = fmt.Fprintln(conn, strings.ReplaceAll(answer, "ID", fmt.Sprint(question.ID)))
		}
	}
}

var dial = (&net.Dialer{}).DialContext

const regtest = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"

func TestACheckSaysWhatKeepsAWalletFromAServer(t *testing.T) {
	ours, theirs := newCertificate(t), newCertificate(t)
	pin := sha256.Sum256(ours.Certificate[0])
	good := map[string]string{
		"server.version":  `{"jsonrpc":"2.0","id":ID,"result":["test 1","1.4"]}`,
		"server.features": `{"jsonrpc":"2.0","id":ID,"result":{"genesis_hash":"` + regtest + `"}}`,
	}
	with := func(method, answer string) map[string]string {
		all := map[string]string{method: answer}
		for name, one := range good {
			if name != method {
				all[name] = one
			}
		}
		return all
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	for name, test := range map[string]struct {
		at   string
		want error
	}{
		"a good server":                  {serve(t, answering(ours, good)), nil},
		"nobody":                         {closed.Addr().String(), ErrUnreachable},
		"another certificate":            {serve(t, answering(theirs, good)), ErrOtherCertificate},
		"no TLS":                         {serve(t, func(conn net.Conn) { _, _ = io.WriteString(conn, "hello\n") }), ErrNoTLS},
		"TLS with nothing behind it":     {serve(t, answering(ours, nil)), ErrNotReady},
		"an error":                       {serve(t, answering(ours, with("server.version", `{"id":ID,"error":{"code":1}}`))), ErrNotReady},
		"the answer to another question": {serve(t, answering(ours, with("server.version", `{"id":99,"result":["a","b"]}`))), ErrNotReady},
		"a version of one part":          {serve(t, answering(ours, with("server.version", `{"id":ID,"result":["a"]}`))), ErrNotReady},
		"no JSON":                        {serve(t, answering(ours, with("server.features", `<html>`))), ErrNotReady},
		"an answer that is too long":     {serve(t, answering(ours, with("server.features", strings.Repeat(" ", maxAnswer)+"{}"))), ErrNotReady},
		"a version that is right, and then nothing": {
			serve(t, answering(ours, map[string]string{"server.version": good["server.version"]})), ErrNotReady},
	} {
		server, err := Check(t.Context(), dial, test.at, pin)
		if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("%s: %v, not %v", name, err, test.want)
		}
		if err == nil && (server.Software != "test 1" || server.Protocol != "1.4" || server.Network() != basev1.Network_NETWORK_REGTEST) {
			t.Errorf("%s: %+v", name, server)
		}
	}
	// Broken variant: a check that compares no certificate takes the other one.
	other := sha256.Sum256(theirs.Certificate[0])
	if _, err := Check(t.Context(), dial, serve(t, answering(theirs, good)), other); err != nil {
		t.Errorf("with the other certificate's own digest: %v; the attack shows nothing", err)
	}
}

func TestACheckThatIsGivenUpEnds(t *testing.T) {
	held := make(chan struct{})
	at := serve(t, func(net.Conn) { <-held })
	defer close(held)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := Check(ctx, dial, at, [sha256.Size]byte{})
		ended <- err
	}()
	cancel()
	if err := <-ended; err == nil {
		t.Error("it has found a server")
	}
}
