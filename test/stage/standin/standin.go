// Command standin replaces the Base's binary in tests of the servers that need neither
// Middleware nor system helper, or that use a configuration that no owner has signed. As
// `middleware` it reads the PROXY header of each connection and refuses what follows, in the
// words of internal/middleware/admission. As `ports` it holds NGINX's ports. As `system` and
// `console` it only runs. Everything else that the units ask for succeeds at once.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/proxy"
)

// firstSocket is the descriptor under which systemd hands over the first socket.
const firstSocket = 3

func main() {
	switch strings.Join(os.Args[1:], " ") {
	case "middleware":
		fmt.Fprintln(os.Stderr, "stand-in:", serve())
		os.Exit(1)
	case "ports":
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := proxy.Hold(ctx, generation.HeldPorts()); err != nil {
			fmt.Fprintln(os.Stderr, "stand-in:", err)
		}
	case "system", "console":
		for {
			time.Sleep(time.Hour)
		}
	}
}

// serve ends with an error only.
func serve() error {
	listener, err := net.FileListener(os.NewFile(firstSocket, "systemd"))
	if err != nil {
		return fmt.Errorf("take the socket from systemd: %w", err)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go refuse(conn)
	}
}

func refuse(conn net.Conn) {
	defer conn.Close()
	deadline := time.Now().Add(5 * time.Second)
	if err := conn.SetDeadline(deadline); err != nil {
		return
	}
	reader := bufio.NewReaderSize(conn, 256)
	header, err := reader.ReadString('\n')
	fields := strings.Fields(header)
	if err != nil || len(fields) != 6 || fields[0] != "PROXY" {
		slog.Info("handshake refused", "addr", "unknown", "reason", "no_address")
		return
	}
	if _, err := reader.ReadByte(); err == nil {
		slog.New(slog.NewTextHandler(os.Stderr, nil)).Info("handshake refused", "against", fields[2], "addr", fields[2], "reason",
			"malformed_frame")
	}
	_, _ = reader.WriteTo(discard{}) // until the deadline
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
