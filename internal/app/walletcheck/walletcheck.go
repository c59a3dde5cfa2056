// Package walletcheck connects to an Electrum server as a wallet does, and says what would keep a
// wallet from using it.
package walletcheck

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Why a wallet could not use a server. Each is found before the next.
var (
	// ErrUnreachable: nothing accepts the connection.
	ErrUnreachable = errors.New("it cannot be reached")
	// ErrOtherCertificate: TLS works, with another certificate than the Base's.
	ErrOtherCertificate = errors.New("it shows another certificate")
	// ErrNoTLS: TLS does not come about.
	ErrNoTLS = errors.New("it does not speak TLS")
	// ErrNotReady: the certificate is right, and no Electrum server answers behind it.
	ErrNotReady = errors.New("no server answers")
)

const (
	// stepTime is how long a connection, TLS, or one answer may take.
	stepTime = 10 * time.Second
	// maxAnswer is the longest answer in bytes.
	maxAnswer = 64 << 10
	// maxText is the longest text of a server that is passed on, in bytes.
	maxText = 64
)

// Server is what a server says of itself. Its texts are not made printable.
type Server struct {
	// Software and Protocol are those of server.version.
	Software, Protocol string
	// Genesis is the hash of the first block of its chain, in hexadecimal, as server.features has it;
	// empty if it does not tell.
	Genesis string
}

// Dial makes a connection, as net.Dialer.DialContext does.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Check connects to an address (host:port), compares the SHA-256 of the certificate, and asks who
// answers. An error is one of those above, with its cause.
func Check(ctx context.Context, dial Dial, address string, certificate [sha256.Size]byte) (Server, error) {
	dialing, cancel := context.WithTimeout(ctx, stepTime)
	raw, err := dial(dialing, "tcp", address)
	cancel()
	if err != nil {
		return Server{}, fmt.Errorf("connect to %s: %w: %w", address, ErrUnreachable, err)
	}
	defer raw.Close()
	// A call that is given up ends what it waits for.
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	other := false
	conn := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS12,
		// Nobody has signed the certificate: the Base's helper has signed its digest.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if other = len(state.PeerCertificates) == 0 || sha256.Sum256(state.PeerCertificates[0].Raw) != certificate; other {
				return ErrOtherCertificate
			}
			return nil
		},
	})
	if err := errors.Join(conn.SetDeadline(time.Now().Add(stepTime)), conn.HandshakeContext(ctx)); err != nil {
		kind := ErrNoTLS
		if other {
			kind = ErrOtherCertificate
		}
		return Server{}, fmt.Errorf("begin TLS with %s: %w: %w", address, kind, err)
	}
	c := client{conn: conn, lines: bufio.NewReaderSize(io.LimitReader(conn, 2*maxAnswer), maxAnswer)}
	var version []string
	if err := c.ask("server.version", []string{"bitbox-app", "1.4"}, &version); err != nil || len(version) != 2 {
		return Server{}, fmt.Errorf("ask %s for its version: %w: %w", address, ErrNotReady, err)
	}
	s := Server{Software: cut(version[0]), Protocol: cut(version[1])}
	var features struct {
		Genesis string `json:"genesis_hash"`
	}
	if err := c.ask("server.features", []string{}, &features); err != nil {
		return s, fmt.Errorf("ask %s for its features: %w: %w", address, ErrNotReady, err)
	}
	s.Genesis = cut(features.Genesis)
	return s, nil
}

func cut(text string) string { return text[:min(len(text), maxText)] }

// client asks one question after the other.
type client struct {
	conn  net.Conn
	lines *bufio.Reader
	id    int
}

func (c *client) ask(method string, params []string, result any) error {
	c.id++
	question, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": c.id, "method": method, "params": params})
	if err != nil {
		return err
	}
	if err := c.conn.SetDeadline(time.Now().Add(stepTime)); err != nil {
		return err
	}
	if _, err := c.conn.Write(append(question, '\n')); err != nil {
		return err
	}
	line, err := c.lines.ReadSlice('\n')
	if err != nil {
		return err
	}
	var answer struct {
		ID     int             `json:"id"`
		Result json.RawMessage `json:"result"`
		Error  json.RawMessage `json:"error"`
	}
	switch err := json.Unmarshal(line, &answer); {
	case err != nil:
		return err
	case answer.ID != c.id:
		return errors.New("it answers another question")
	case len(answer.Error) > 0 && string(answer.Error) != "null":
		return errors.New("it answers with an error")
	}
	return json.Unmarshal(answer.Result, result)
}
