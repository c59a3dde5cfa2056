package source

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
)

// Bounds of a connection to btcd as a peer of the Bitcoin network.
const (
	peerTime = 20 * time.Second
	// maxMessages is how many other messages are read before the block comes.
	maxMessages = 10_000
	// peerIdle is how long a connection stays that nobody uses: the node lists it among its peers.
	peerIdle = time.Second
)

// Of the Bitcoin protocol: our version is the first with witnesses (BIP 144); a request for a
// block with its witnesses.
const (
	protocolVersion = 70013
	witnessBlock    = 0x40000002
)

// peer asks a node for blocks, one at a time.
type peer struct {
	address string
	magic   uint32

	mu   sync.Mutex
	conn net.Conn // nil: not connected
	read *bufio.Reader
	idle *time.Timer // nil before the first use
}

func (p *peer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hangUp()
}

func (p *peer) hangUp() {
	if p.idle != nil {
		p.idle.Stop()
	}
	if p.conn != nil {
		_ = p.conn.Close()
		p.conn = nil
	}
}

func (p *peer) block(ctx context.Context, hash chain.Hash) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fresh := p.conn == nil
	b, err := p.fetch(ctx, hash)
	if err != nil && !fresh && ctx.Err() == nil {
		// The node may have been restarted.
		p.hangUp()
		b, err = p.fetch(ctx, hash)
	}
	if err != nil {
		p.hangUp()
	} else if p.idle == nil {
		p.idle = time.AfterFunc(peerIdle, p.close)
	} else {
		p.idle.Reset(peerIdle)
	}
	return b, err
}

func (p *peer) fetch(ctx context.Context, hash chain.Hash) ([]byte, error) {
	if p.conn == nil {
		if err := p.connect(ctx); err != nil {
			return nil, err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = p.conn.SetDeadline(time.Unix(0, 0)) })
	defer stop()
	if err := p.conn.SetDeadline(time.Now().Add(peerTime)); err != nil {
		return nil, err
	}
	request := append([]byte{1}, binary.LittleEndian.AppendUint32(nil, witnessBlock)...)
	if err := p.send("getdata", append(request, hash[:]...)); err != nil {
		return nil, err
	}
	return p.until(func(command string, payload []byte) (bool, error) {
		switch command {
		case "notfound":
			return false, errors.New("the node does not have it")
		case "block":
			return len(payload) >= chain.HeaderSize && chain.Double(payload[:chain.HeaderSize]) == hash, nil
		}
		return false, nil
	})
}

// connect greets the node.
func (p *peer) connect(ctx context.Context) error {
	dialer := net.Dialer{Timeout: peerTime}
	conn, err := dialer.DialContext(ctx, "tcp4", p.address)
	if err != nil {
		return fmt.Errorf("the node does not listen for peers at %s", p.address)
	}
	p.conn, p.read = conn, bufio.NewReader(conn)
	if err := conn.SetDeadline(time.Now().Add(peerTime)); err != nil {
		return err
	}
	// version, services, time, two addresses of services, IPv6 and port, a nonce, agent, height,
	// and whether we want to hear of transactions.
	hello := binary.LittleEndian.AppendUint32(nil, protocolVersion)
	hello = append(hello, make([]byte, 8)...)
	hello = binary.LittleEndian.AppendUint64(hello, uint64(time.Now().Unix()))
	hello = append(hello, make([]byte, 26+26)...)
	hello = binary.LittleEndian.AppendUint64(hello, uint64(time.Now().UnixNano()))
	const agent = "/bitbox-node/"
	hello = append(append(hello, byte(len(agent))), agent...)
	hello = append(hello, 0, 0, 0, 0, 0)
	if err := p.send("version", hello); err != nil {
		return err
	}
	greeted := false
	_, err = p.until(func(command string, _ []byte) (bool, error) {
		if command == "version" {
			greeted = true
			return false, p.send("verack", nil)
		}
		return command == "verack" && greeted, nil
	})
	return err
}

// until reads messages until one is wanted, and returns its payload. A ping is answered.
func (p *peer) until(wanted func(command string, payload []byte) (bool, error)) ([]byte, error) {
	for range maxMessages {
		command, payload, err := readMessage(p.read, p.magic)
		if err != nil {
			return nil, err
		}
		if command == "ping" {
			if err := p.send("pong", payload); err != nil {
				return nil, err
			}
		}
		if found, err := wanted(command, payload); err != nil || found {
			return payload, err
		}
	}
	return nil, errors.New("the node sends anything but what was asked for")
}

func (p *peer) send(command string, payload []byte) error {
	_, err := p.conn.Write(message(p.magic, command, payload))
	return err
}

// A message: magic (4 bytes), command (12, filled with zeros), length (4), the first 4 bytes of
// the payload's double hash, payload.
const messageHeader = 24

func message(magic uint32, command string, payload []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, magic)
	var name [12]byte
	copy(name[:], command)
	sum := chain.Double(payload)
	return slices.Concat(b, name[:], binary.LittleEndian.AppendUint32(nil, uint32(len(payload))), sum[:4], payload)
}

func readMessage(r io.Reader, magic uint32) (command string, payload []byte, err error) {
	var header [messageHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return "", nil, errors.New("the node has hung up")
	}
	size := binary.LittleEndian.Uint32(header[16:20])
	switch {
	case binary.LittleEndian.Uint32(header[:4]) != magic:
		return "", nil, errors.New("the node speaks to another network")
	case size > chain.MaxBlock:
		return "", nil, fmt.Errorf("a message of the node has %d bytes", size)
	}
	payload = make([]byte, size)
	if _, err := io.ReadFull(r, payload); err != nil {
		return "", nil, errors.New("the node has hung up")
	}
	if sum := chain.Double(payload); !bytes.Equal(sum[:4], header[20:24]) {
		return "", nil, errors.New("a message of the node is damaged")
	}
	return string(bytes.TrimRight(header[4:16], "\x00")), payload, nil
}
