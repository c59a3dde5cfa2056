package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
)

// measureStranger counts strangers that a core of the Base's refuses in a second. A stranger
// makes a right frame, but for its mac1; the rival's has a certificate that is not pinned.
// Only the processor time of the thread that serves is counted.
func measureStranger(r *report) error {
	const rounds, strangers = 7, 60
	our, rival, err := contestants()
	if err != nil {
		return err
	}
	other, err := newRivalTLS()
	if err != nil {
		return err
	}
	for _, pairings := range []int{1, registry.MaxPairings} {
		var keys []noiseconn.MAC1Key
		for range pairings {
			stranger, err := newOurs()
			if err != nil {
				return err
			}
			keys = append(keys, stranger.mac1)
		}
		f := figure{what: fmt.Sprintf("strangers refused at mac1, a core of a Base, pairings: %d", pairings), unit: "1/s",
			rival: "TLS 1.3 refusing an unknown certificate", more: true}
		if pairings == 1 { // the rival, too, compares with one; a Base with the most it can have is only printed
			f.least = 20
		}
		f.ours, f.their, err = alternateFigures(rounds,
			func() (float64, error) {
				return refusedPerSecond(strangers,
					func(c net.Conn) { _, _ = our.connect(c, 1) },
					func(c net.Conn) error {
						_, r1, err := noiseconn.ReadFrame(c)
						if err != nil {
							return err
						}
						if noiseconn.MatchMAC1(keys, r1) >= 0 {
							return errors.New("a stranger was let in")
						}
						return nil
					})
			},
			func() (float64, error) {
				return refusedPerSecond(strangers,
					func(c net.Conn) { _, _ = tls.Client(c, rivalStranger(other, rival)).Read(make([]byte, 1)) },
					func(c net.Conn) error {
						if tls.Server(c, rival.server).Handshake() == nil {
							return errors.New("a stranger was let in")
						}
						return nil
					})
			})
		if err != nil {
			return err
		}
		r.add(f)
	}
	return nil
}

// rivalStranger trusts the rival's server, and has another certificate.
func rivalStranger(stranger, rival *rivalTLS) *tls.Config {
	config := rival.client.Clone()
	config.Certificates = stranger.client.Certificates
	return config
}

// refusedPerSecond has strangers knock one after the other.
func refusedPerSecond(strangers int, knock func(net.Conn), refuse func(net.Conn) error) (float64, error) {
	var used float64
	for range strangers {
		client, server, err := plainPair()
		if err != nil {
			return 0, err
		}
		go func() {
			knock(client)
			client.Close()
		}()
		// The stranger's first bytes have arrived when the time begins, so neither side pays for waiting.
		if err := readable(server); err != nil {
			return 0, err
		}
		refused := make(chan error, 1)
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			start := cpuTime(unix.CLOCK_THREAD_CPUTIME_ID)
			err := refuse(server)
			used += (cpuTime(unix.CLOCK_THREAD_CPUTIME_ID) - start).Seconds()
			server.Close()
			refused <- err
		}()
		if err := <-refused; err != nil {
			return 0, err
		}
	}
	return float64(strangers) / used, nil
}

// readable waits until there is something to read, and reads nothing.
func readable(c net.Conn) error {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	var peek [1]byte
	return raw.Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), peek[:], syscall.MSG_PEEK)
		return err != syscall.EAGAIN
	})
}
