// Command played is a bitcoind in tests: it runs in the place of Bitcoin Core, as its user and in its
// sandbox, and answers as a file below its data says, read for each request:
//
//	HEIGHT     the answers of a node on regtest that has this many blocks
//	garbage    bytes that are no JSON
//	huge       an answer without an end
//	stubborn   none; and it takes no end of time to stop
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "played:", err)
		os.Exit(1)
	}
}

func run() error {
	given := map[string]string{}
	for _, argument := range os.Args[1:] {
		name, value, _ := strings.Cut(argument, "=")
		given[name] = value
	}
	text, err := os.ReadFile(given["-conf"])
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if cookie, is := strings.CutPrefix(strings.TrimSpace(line), "rpccookiefile="); is {
			if err := os.WriteFile(cookie, []byte("__cookie__:0123456789"), 0o640); err != nil {
				return err
			}
		}
	}
	answers := answering(filepath.Join(given["-datadir"], "answers"))
	server := &http.Server{Addr: "127.0.0.1:8332", Handler: answers}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	go func() {
		<-terminated
		_ = server.Close()
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	for answers.read() == "stubborn" {
		time.Sleep(time.Second)
	}
	return nil
}

type answering string

func (file answering) read() string {
	text, _ := os.ReadFile(string(file)) // without one it answers nothing
	return strings.TrimSpace(string(text))
}

// ServeHTTP answers a batch.
func (file answering) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var questions []struct {
		ID     int    `json:"id"`
		Method string `json:"method"`
		Params []any  `json:"params"`
	}
	if json.NewDecoder(r.Body).Decode(&questions) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	switch text := file.read(); text {
	case "garbage":
		_, _ = w.Write([]byte("\x1b[2J\x00garbage"))
	case "huge":
		for err := error(nil); err == nil; {
			_, err = w.Write(make([]byte, 1<<20))
		}
	default:
		height, err := strconv.Atoi(text)
		if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		replies := make([]map[string]any, len(questions))
		for i, q := range questions {
			replies[i] = map[string]any{"id": q.ID, "result": answer(q.Method, q.Params, height)}
		}
		_ = json.NewEncoder(w).Encode(replies)
	}
}

// hash is that of the block at a height.
func hash(height int) string { return fmt.Sprintf("%064x", height+1) }

func answer(method string, params []any, height int) any {
	switch method {
	case "getblockchaininfo":
		return map[string]any{"chain": "regtest", "blocks": height, "headers": height, "bestblockhash": hash(height), "verificationprogress": 1,
			"size_on_disk": 1 << 20}
	case "getnetworkinfo":
		return map[string]any{"subversion": "/Satoshi:31.0.0/", "warnings": []string{}}
	case "getpeerinfo":
		return []any{}
	case "getblockhash":
		at, _ := params[0].(float64)
		return hash(int(at))
	case "getblock":
		of, _ := params[0].(string)
		at, _ := strconv.ParseInt(of, 16, 64)
		block := map[string]any{"hash": of, "height": at - 1, "time": 1_700_000_000 + at, "size": 300, "tx": []string{"a"}}
		if at > 1 {
			block["previousblockhash"] = hash(int(at) - 2)
		}
		return block
	}
	return map[string]any{}
}
