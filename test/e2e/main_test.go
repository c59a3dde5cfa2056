//go:build linux

// Package e2e_test attacks a whole Base: the real system helper and Debian's real servers under
// a real systemd, with attackers on the same network. It needs root; see test/stage.
package e2e_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/windowtest"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// The test binary is also installed in the Base, where it carries a request to the
// helper's socket as whatever user it is started: `relay`, with the request in
// hexadecimal on its input, prints a line for each reply. As `hold` it is a
// Middleware that takes every connection and says nothing; `flood` and `unbounded` are
// those of flood_test.go, `mine` is that of wallet_test.go.
func TestMain(m *testing.M) {
	for role, do := range map[string]func() error{"relay": relay, "hold": hold, "flood": flood, "unbounded": unbounded, "mine": mine} {
		if len(os.Args) == 2 && os.Args[1] == role {
			if err := do(); err != nil {
				fmt.Println("error", err)
				os.Exit(1)
			}
			return
		}
	}
	code := stage.Main(m)
	if err := windowtest.Clear(); err != nil {
		fmt.Fprintln(os.Stderr, "remove what was built:", err)
		code = 1
	}
	os.Exit(code)
}

func hold() error {
	listener, err := passedListener()
	if err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() { _, _ = io.Copy(io.Discard, conn) }()
	}
}

// passedListener is the socket that systemd has passed.
func passedListener() (*net.UnixListener, error) {
	const firstSocket = 3 // see sd_listen_fds(3)
	listener, err := net.FileListener(os.NewFile(firstSocket, "systemd"))
	if err != nil {
		return nil, err
	}
	unix, ok := listener.(*net.UnixListener)
	if !ok {
		return nil, fmt.Errorf("the socket is %T", listener)
	}
	return unix, nil
}

func relay() error {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 4<<20)
	lines.Scan()
	number, text, _ := strings.Cut(lines.Text(), " ")
	kind, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return err
	}
	request, err := hex.DecodeString(text)
	if err != nil {
		return err
	}
	// The parent process waits for the end of this one.
	ctx, cancel := context.WithTimeout(context.Background(), stage.Patience)
	defer cancel()
	for reply, err := range ipc.Dial(generation.SystemSocket).Stream(ctx, uint16(kind), request) {
		if err != nil {
			return err
		}
		if _, err := fmt.Println("reply", hex.EncodeToString(reply)); err != nil {
			return err
		}
	}
	return nil
}
