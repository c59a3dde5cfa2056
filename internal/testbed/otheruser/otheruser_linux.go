// Package otheruser does something as another user of the machine, within a test that runs as
// root.
package otheruser

import (
	"net"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// UID is a user that has no name.
const UID = 54321

// Do calls f in a thread that belongs to UID. It skips the test without root.
func Do(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("becoming another user needs root")
	}
	done := make(chan error)
	go func() {
		// The thread is never unlocked, so it ends with the goroutine. The system call itself
		// changes this thread alone; the function of the library would change the whole process.
		runtime.LockOSThread()
		_, _, failed := unix.RawSyscall(unix.SYS_SETRESUID, UID, UID, UID)
		if failed != 0 {
			done <- failed
			return
		}
		f()
		done <- nil
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// Dial connects as another user.
func Dial(t *testing.T, network, address string) net.Conn {
	t.Helper()
	var conn net.Conn
	var err error
	Do(t, func() { conn, err = net.Dial(network, address) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
