//go:build linux

package main

import (
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/discovery"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/announcement"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/provisioning"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/appliancetest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/netnstest"
)

// announcedBoard boots a board with a provisioning file on the local network of the test, and
// announces it as its helper has Avahi do it.
func announcedBoard(t *testing.T, name string, f provisioning.File) {
	t.Helper()
	board, err := appliancetest.StartProvisioned(f, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := board.Stop(); err != nil {
			t.Error(err)
		}
	})
	lan, err := net.Listen("tcp", netnstest.IPv4.Addr().String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lan.Close() })
	go func() {
		for {
			from, err := lan.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", board.Address())
			if err != nil {
				from.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
				go func() {
					_, _ = io.Copy(way[0], way[1])
					way[0].Close()
				}()
			}
		}
	}()
	key, err := noiseconn.ClaimDiscoveryKey(f.Claim.Secret)
	if err != nil {
		t.Fatal(err)
	}
	txt := announcement.TXT{Version: noiseconn.ProtocolVersion, PairingOpen: true}
	_, _ = rand.Read(txt.Nonce[:])
	txt.ID = noiseconn.DiscoveryID(key, txt.Nonce[:])
	announcer, err := discovery.Announce(t.Context(), discovery.Announcement{
		Instance: name, Port: uint16(lan.Addr().(*net.TCPAddr).Port), TXT: txt,
		Interfaces: func(i net.Interface) bool { return i.Name == netnstest.Interface },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { announcer.Close() })
}

// The attack: somebody has a copy of the file, and has a board of his own wait for the App beside
// the true one.
func TestAnAppFindsTheBaseOfItsClaimAndTakesNoneIfThereAreTwo(t *testing.T) {
	netnstest.Require(t)
	ask := func(app *client.App) error {
		session, err := app.Open("Cellar")
		if err != nil {
			return err
		}
		defer session.Close()
		_, err = session.Info.GetInfo(t.Context(), &basev1.GetInfoRequest{})
		return err
	}
	for name, boards := range map[string]int{"one": 1, "two": 2} {
		t.Run(name, func(t *testing.T) {
			app, err := client.New(client.Options{Dir: t.TempDir(), Name: "Laptop"})
			if err != nil {
				t.Fatal(err)
			}
			made, err := app.Provision(t.TempDir(), client.ProvisionOptions{Name: "Cellar", Pair: true})
			if err != nil {
				t.Fatal(err)
			}
			content, err := os.ReadFile(made.File)
			if err != nil {
				t.Fatal(err)
			}
			f, err := provisioning.Parse(content)
			if err != nil {
				t.Fatal(err)
			}
			for n := range boards {
				announcedBoard(t, "Cellar "+string(rune('A'+n)), f)
			}
			err = ask(app)
			base, stored := app.Base("Cellar")
			switch {
			case stored != nil:
				t.Fatal(stored)
			case boards == 1 && (err != nil || base.State != client.Active):
				t.Errorf("the App is %v, and says %v", base.State, client.Explain(err))
			case boards == 2 && (!errors.Is(err, client.ErrSecondBoard) || base.State != client.Unclaimed):
				t.Errorf("the App is %v, and says %v", base.State, err)
			}
		})
	}
}
