// Command bench prints what this project costs beside what its rival costs, both
// measured in the same run on the same machine:
//
//	go run ./bench              everything
//	go run ./bench -run bulk    only rows with "bulk" in their name
//
// It asserts nothing: absolute figures belong to a machine. A ratio above 1
// means that we do better. Rounds of the two alternate and the median counts,
// so that a busy machine disturbs both alike.
//
// The rival of the channel is crypto/tls 1.3, made to do the same work: mutual
// authentication by pinned Ed25519 keys, X25519MLKEM768, no session tickets, and
// TLS_CHACHA20_POLY1305_SHA256. TLS 1.3 in Go prefers AES where the processor
// has the instructions and cannot be configured otherwise, so the program starts
// itself again with GODEBUG telling Go that one of them is missing. Nothing that
// is measured here uses it.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// measurements are what is measured, in the order of the table. Each is in a
// file of its name.
var measurements = []measurement{
	{"handshake", measureHandshake},
	{"bulk", measureBulk},
	{"latency", measureLatency},
	{"call", measureCalls},
	{"entry", measureEntry},
	{"event", measureEvent},
	{"idle", measureIdle},
	{"stream", measureStream},
	{"leak", measureLeak},
}

// measurement fills one or more rows of the table.
type measurement struct {
	name    string
	measure func() ([]row, error)
}

func main() {
	only := flag.String("run", "", "measure only what has this text in its name")
	following := flag.String("follow", "", "be the rival's App that prints events from this address (used by this program itself)")
	keys := flag.String("keys", "", "the keys for that")
	flag.Parse()
	if err := restartWithoutAES(); err != nil {
		fail(err)
	}
	if *following != "" {
		fail(followGRPC(*following, *keys, os.Stdout))
	}
	fmt.Fprintf(os.Stderr, "%s, %s/%s, %d CPUs\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	var rows []row
	for _, m := range measurements {
		if !strings.Contains(m.name, *only) {
			continue
		}
		fmt.Fprintf(os.Stderr, "measuring %s\n", m.name)
		measured, err := m.measure()
		if err != nil {
			fail(fmt.Errorf("measure %s: %w", m.name, err))
		}
		rows = append(rows, measured...)
	}
	if err := printTable(os.Stdout, rows); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

// noAES makes crypto/tls prefer ChaCha20-Poly1305, by processor: it switches off
// the carry-less multiplication, without which AES-GCM is slow. Where none is
// named, the rival's choice is checked after its handshake.
var noAES = map[string]string{
	"amd64": "cpu.pclmulqdq=off",
	"arm64": "cpu.pmull=off",
}[runtime.GOARCH]

// restartWithoutAES runs this program again as a child, which is the only way to
// set what the runtime reads when it starts. In the child it returns; in the
// parent it does not, except with an error.
func restartWithoutAES() error {
	if strings.Contains(os.Getenv("GODEBUG"), noAES) { // also where noAES is empty
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program to start it again: %w", err)
	}
	child := exec.Command(self, os.Args[1:]...)
	child.Env = append(os.Environ(), "GODEBUG="+strings.TrimPrefix(os.Getenv("GODEBUG")+","+noAES, ","))
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := child.Run(); err != nil {
		return fmt.Errorf("run this program again: %w", err)
	}
	os.Exit(0)
	return nil
}
