// Command bench measures this project and its rival in the same run on the same machine:
//
//	go run ./bench              everything
//	go run ./bench -run call    only measurements with "call" in their name
//	go run ./bench -docs        everything, and write it into docs/performance.md
//
// It asserts nothing, because absolute figures depend on the machine. A ratio above 1 means
// that this project does better. Rounds of the two alternate, so that a busy machine disturbs
// both alike. If a measurement fails, bench reports it at the end and still prints the others.
//
// The rival is gRPC-Go over crypto/tls 1.3, configured to do the same work: mutual
// authentication by pinned Ed25519 keys, X25519MLKEM768, no session tickets, and
// TLS_CHACHA20_POLY1305_SHA256. TLS 1.3 in Go prefers AES if the processor has the
// instructions, and cannot be configured otherwise. So the program starts itself again with
// GODEBUG saying that one of them is missing. Nothing that is measured here uses it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// measurements are what is measured, in the order of the table.
var measurements = []measurement{
	{"call through NGINX", measureEntry},
	{"call direct", measureDirect},
	{"connect", measureConnect},
	{"event", measureEvent},
	{"memory", measureMemory},
	{"handshake", measureHandshake},
	{"stranger", measureStranger},
	{"attacks", measureAttacks},
	{"sessions", measureSessions},
	{"closing", measureClosing},
	{"wallet", measureWallet},
	{"window", measureWindow},
}

// measurement makes figures, and perhaps a plot of them.
type measurement struct {
	name    string
	measure func(r *report) error
}

func main() {
	only := flag.String("run", "", "measure only what has this text in its name")
	docs := flag.Bool("docs", false, "write the figures and plots into docs/performance.md and docs/performance")
	following := flag.String("follow", "", "be the rival's App that prints events from this address (used by this program itself)")
	keys := flag.String("keys", "", "the keys for that")
	attacking := flag.String("attack", "", "be the App that makes this attack on a Base (used by this program itself)")
	at := flag.String("at", "", "the address for that")
	flag.Parse()
	if err := restartWithoutAES(); err != nil {
		fail(err)
	}
	if *following != "" {
		fail(followGRPC(*following, *keys, os.Stdout))
	}
	if *attacking != "" {
		fail(attack(*attacking, *at))
	}
	r := &report{machine: fmt.Sprintf("%s, %s/%s, %d CPUs", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())}
	fmt.Fprintln(os.Stderr, r.machine)
	var failures []error
	for _, m := range measurements {
		if !strings.Contains(m.name, *only) {
			continue
		}
		fmt.Fprintf(os.Stderr, "measuring %s\n", m.name)
		if err := m.measure(r); err != nil {
			failures = append(failures, fmt.Errorf("measure %s: %w", m.name, err))
		}
	}
	failures = append(failures, r.print(os.Stdout))
	if *docs {
		failures = append(failures, r.write("docs"))
	}
	if err := errors.Join(failures...); err != nil {
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
