package window

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/peer"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/otheruser"
)

func TestAnotherUserOfTheComputerGetsNothing(t *testing.T) {
	for _, broken := range []bool{false, true} {
		s := openSite(t, func(s *server) {
			if broken {
				s.door.admits = func(peer.Whose) bool { return true }
			}
		})
		own := s.browser()
		own.enters()
		conn := otheruser.Dial(t, "tcp4", strings.TrimPrefix(s.address, "http://"))
		// The other user has stolen even the cookie.
		r := own.request("GET", "/bases", typed, nil)
		r.Close = true
		_ = r.Write(conn) // it may be hung up on at once
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(conn)
		if got := strings.Contains(string(text), "well"); got != broken {
			t.Errorf("broken: %t; another user reads %q (%v)", broken, text, err)
		}
		if !broken && (len(text) > 0 || errors.Is(err, os.ErrDeadlineExceeded)) {
			t.Errorf("another user reads %q (%v)", text, err)
		}
	}
}

func TestAnotherUserGetsNoInvitation(t *testing.T) {
	s := openSite(t, nil)
	path := s.Dir + "/" + socketFile
	var err error
	otheruser.Do(t, func() { _, err = net.Dial("unix", path) })
	if err == nil {
		t.Error("another user connects to the socket")
	}
	// Even if the folder were open to all.
	for _, at := range []string{s.Dir, path} {
		if err := os.Chmod(at, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	parents := strings.Split(strings.TrimPrefix(s.Dir, os.TempDir()+"/"), "/")
	for n := range parents {
		if err := os.Chmod(os.TempDir()+"/"+strings.Join(parents[:n+1], "/"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conn := otheruser.Dial(t, "unix", path)
	_, _ = io.WriteString(conn, `{"code":true}`+"\n")
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(conn); len(text) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("another user gets %q (%v)", text, err)
	}
	if _, err := askRunning(t.Context(), path, question{}); err != nil {
		t.Errorf("its own user gets %v", err)
	}
}
