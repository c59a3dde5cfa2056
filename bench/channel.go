package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
)

// channel is one way to make a secure connection out of a plain one.
type channel interface {
	// handshake runs both ends at once and returns them.
	handshake(client, server net.Conn) (net.Conn, net.Conn, error)
}

// plainPair returns the two ends of a TCP connection over loopback.
func plainPair() (client, server net.Conn, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer listener.Close()
	if client, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		return nil, nil, err
	}
	if server, err = listener.Accept(); err != nil {
		client.Close()
		return nil, nil, err
	}
	return client, server, nil
}

// securePair returns the two ends of a secure connection over loopback.
func securePair(c channel) (client, server net.Conn, err error) {
	plainClient, plainServer, err := plainPair()
	if err != nil {
		return nil, nil, err
	}
	return c.handshake(plainClient, plainServer)
}

// bothEnds runs the server's end in a goroutine beside the client's.
func bothEnds(client, server func() (net.Conn, error)) (net.Conn, net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	served := make(chan result, 1)
	go func() {
		conn, err := server()
		served <- result{conn, err}
	}()
	conn, err := client()
	s := <-served
	return conn, s.conn, errors.Join(err, s.err)
}

// ours is the connect handshake of package noiseconn, with what a Base does
// before and after: find the pairing by mac1, and compare the static key.
type ours struct {
	app, base     noiseconn.StaticKey
	appPub        noiseconn.PublicKey
	basePub       noiseconn.PublicKey
	pair          noiseconn.PairKey
	mac1          noiseconn.MAC1Key
	nextHandshake uint64
}

func newOurs() (*ours, error) { return newOursFrom(nil) }

// newOursFrom takes its keys from random; nil: the system's generator.
func newOursFrom(random io.Reader) (*ours, error) {
	o := &ours{}
	var errs [6]error
	o.app, errs[0] = noiseconn.GenerateStatic(random)
	o.base, errs[1] = noiseconn.GenerateStatic(random)
	o.appPub, errs[2] = noiseconn.PublicOf(o.app)
	o.basePub, errs[3] = noiseconn.PublicOf(o.base)
	o.pair, errs[4] = noiseconn.GeneratePairKey(random)
	o.mac1, errs[5] = noiseconn.MAC1KeyOf(o.pair)
	return o, errors.Join(errs[:]...)
}

func (o *ours) handshake(client, server net.Conn) (net.Conn, net.Conn, error) {
	o.nextHandshake++
	seq := o.nextHandshake
	return bothEnds(
		func() (net.Conn, error) { return o.connect(client, seq) },
		func() (net.Conn, error) { return o.accept(server) })
}

func (o *ours) connect(c net.Conn, seq uint64) (net.Conn, error) {
	initiator, err := noiseconn.NewConnectInitiator(nil, o.app, o.basePub, o.pair, seq)
	if err != nil {
		return nil, err
	}
	if err := noiseconn.WriteFrame(c, noiseconn.TypeConnect, initiator.R1()); err != nil {
		return nil, err
	}
	_, r2, err := noiseconn.ReadFrame(c)
	if err != nil {
		return nil, err
	}
	_, transport, err := initiator.ReadR2(r2)
	if err != nil {
		return nil, err
	}
	return noiseconn.NewConn(c, transport), nil
}

func (o *ours) accept(c net.Conn) (net.Conn, error) {
	_, r1, err := noiseconn.ReadFrame(c)
	if err != nil {
		return nil, err
	}
	if !noiseconn.CheckMAC1(o.mac1, r1) {
		return nil, noiseconn.ErrMAC1
	}
	responder, err := noiseconn.NewConnectResponder(nil, o.base, o.pair, r1)
	if err != nil {
		return nil, err
	}
	if responder.Peer() != o.appPub {
		return nil, errors.New("the App is another one")
	}
	r2, transport, err := responder.WriteR2(noiseconn.StatusOK)
	if err != nil {
		return nil, err
	}
	if err := noiseconn.WriteFrame(c, noiseconn.TypeConnect, r2); err != nil {
		return nil, err
	}
	return noiseconn.NewConn(c, transport), nil
}

// rivalTLS is crypto/tls 1.3 at its fastest for the same work: the certificates
// are compared, not verified, so that no chain costs it anything.
type rivalTLS struct {
	client, server *tls.Config
}

func newRivalTLS() (*rivalTLS, error) {
	clientCert, err := selfSigned("app")
	if err != nil {
		return nil, err
	}
	serverCert, err := selfSigned("base")
	if err != nil {
		return nil, err
	}
	return &rivalTLS{
		client: tlsConfig(clientCert, serverCert),
		server: tlsConfig(serverCert, clientCert),
	}, nil
}

func tlsConfig(own, peer tls.Certificate) *tls.Config {
	return &tls.Config{
		Certificates:           []tls.Certificate{own},
		MinVersion:             tls.VersionTLS13,
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768},
		SessionTicketsDisabled: true,
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // the certificate is pinned below
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			if len(raw) != 1 || string(raw[0]) != string(peer.Certificate[0]) {
				return errors.New("the certificate is another one")
			}
			return nil
		},
	}
}

func selfSigned(name string) (tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, nil
}

func (r *rivalTLS) handshake(client, server net.Conn) (net.Conn, net.Conn, error) {
	return bothEnds(
		func() (net.Conn, error) { return finishTLS(tls.Client(client, r.client)) },
		func() (net.Conn, error) { return finishTLS(tls.Server(server, r.server)) })
}

// finishTLS makes sure that the comparison is with what it says it is.
func finishTLS(c *tls.Conn) (net.Conn, error) {
	if err := c.Handshake(); err != nil {
		return nil, err
	}
	state := c.ConnectionState()
	if state.CipherSuite != tls.TLS_CHACHA20_POLY1305_SHA256 {
		return nil, fmt.Errorf("the rival chose %s, which cannot be compared", tls.CipherSuiteName(state.CipherSuite))
	}
	if state.CurveID != tls.X25519MLKEM768 || len(state.PeerCertificates) != 1 || state.DidResume {
		return nil, errors.New("the rival did another handshake, which cannot be compared")
	}
	return c, nil
}

// contestants returns both channels.
func contestants() (*ours, *rivalTLS, error) {
	our, err := newOurs()
	if err != nil {
		return nil, nil, err
	}
	rival, err := newRivalTLS()
	return our, rival, err
}

// loadRivalTLS reads what save has written: the client's side, whole.
func loadRivalTLS(path string) (*rivalTLS, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var blocks [3]*pem.Block
	for i := range blocks {
		if blocks[i], text = pem.Decode(text); blocks[i] == nil {
			return nil, fmt.Errorf("read the keys of the rival in %s: part %d is missing", path, i+1)
		}
	}
	key, err := x509.ParsePKCS8PrivateKey(blocks[0].Bytes)
	if err != nil {
		return nil, err
	}
	own := tls.Certificate{Certificate: [][]byte{blocks[1].Bytes}, PrivateKey: key}
	return &rivalTLS{client: tlsConfig(own, tls.Certificate{Certificate: [][]byte{blocks[2].Bytes}})}, nil
}
