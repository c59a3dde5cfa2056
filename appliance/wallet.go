//go:build linux

package main

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// rewards is the script that the demo's node pays: the address of the private key 1.
var rewards = []byte("\x00\x14\x75\x1e\x76\xe8\x19\x91\x96\xd4\x54\x94\x1c\x45\xd1\xb3\xa3\x23\xf1\x43\x3b\xd6")

// wallet is what a wallet does and no more: it speaks the Electrum protocol by TLS.
type wallet struct {
	conn *tls.Conn
	read *bufio.Reader
	id   int
}

// dialWallet connects; any certificate will do, as with a wallet that asks its owner.
func dialWallet(to netip.AddrPort) (*wallet, error) {
	conn, err := tls.Dial("tcp", to.String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return nil, err
	}
	return &wallet{conn: conn, read: bufio.NewReader(conn)}, nil
}

// ask asks one question. Notifications in between are left out.
func (w *wallet) ask(into any, method string, params ...any) error {
	w.id++
	text, err := json.Marshal(map[string]any{"id": w.id, "method": method, "params": params})
	if err != nil {
		return err
	}
	if err := w.conn.SetDeadline(time.Now().Add(stage.Patience)); err != nil {
		return err
	}
	if _, err := w.conn.Write(append(text, '\n')); err != nil {
		return err
	}
	for {
		line, err := w.read.ReadBytes('\n')
		if err != nil {
			return err
		}
		var answer struct {
			ID     int
			Result json.RawMessage
			Error  json.RawMessage
		}
		if err := json.Unmarshal(line, &answer); err != nil {
			return err
		}
		switch {
		case answer.ID != w.id:
		case answer.Error != nil:
			return fmt.Errorf("%s: %s", method, answer.Error)
		default:
			return json.Unmarshal(answer.Result, into)
		}
	}
}

// balance is what the rewards are worth, in satoshis.
func (w *wallet) balance() (int64, error) {
	hash := sha256.Sum256(rewards)
	slices.Reverse(hash[:])
	var b struct{ Confirmed int64 }
	err := w.ask(&b, "blockchain.scripthash.get_balance", hex.EncodeToString(hash[:]))
	return b.Confirmed, err
}

// wallets opens the API for a wallet, has it paid by the next block, and cuts it.
func (d *story) wallets() error {
	if err := d.onApp(`\[opens\] .* for good`, "expose", "electrum", "--until-closed", "--yes"); err != nil {
		return err
	}
	port := posture.Extras[0].Port
	if err := d.ports(posture.EntryPort, port); err != nil {
		return err
	}
	if err := d.onApp(`^A wallet can use .*regtest`, "wallet", "check"); err != nil {
		return err
	}
	w, err := dialWallet(netip.AddrPortFrom(d.V4, port))
	if err != nil {
		return fmt.Errorf("connect a wallet: %w", err)
	}
	defer w.conn.Close()
	var agreed []string
	if err := w.ask(&agreed, "server.version", "demo", []string{"1.4", "1.6"}); err != nil {
		return err
	}
	before, err := w.balance()
	if err != nil {
		return err
	}
	line("wallet   is connected to %v, and has %d satoshis", agreed, before)
	if err := d.until(func() error {
		now, err := w.balance()
		if err == nil && now <= before {
			err = errors.New("it was not paid")
		} else if err == nil {
			line("wallet   was paid by a block, and has %d satoshis", now)
		}
		return err
	}); err != nil {
		return err
	}
	if err := d.until(func() error {
		return d.onApp(`^\d+\.\d+\.\d+\.\d+ +\d`, "wallet")
	}); err != nil {
		return err
	}
	if err := d.onApp(`.`, "unexpose", "electrum", "--yes"); err != nil {
		return err
	}
	if _, err := w.balance(); err == nil {
		return errors.New("the wallet was not cut")
	}
	line("wallet   is cut")
	return d.ports(posture.EntryPort)
}
