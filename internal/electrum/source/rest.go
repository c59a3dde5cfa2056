package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
)

// Bounds of Core's REST.
const (
	restTime = 20 * time.Second
	// maxWaiting is the longest list of the mempool in bytes. An ID takes 67, and Core's mempool
	// of 300 MB has fewer than a million transactions.
	maxWaiting = 67 << 20
	maxIdle    = 4
)

// ErrREST: Core's REST is off.
var ErrREST = errors.New("the node does not answer by REST; set rest=1 in its configuration")

// rest is Core's REST, which knows no user.
type rest struct {
	address string
	http    *http.Client
}

func newREST(address string) *rest {
	dialer := net.Dialer{Timeout: restTime}
	return &rest{address, &http.Client{
		Transport: &http.Transport{
			// Whatever the request says, it goes nowhere else.
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "tcp4", address)
			},
			DisableCompression: true, MaxIdleConns: maxIdle, MaxIdleConnsPerHost: maxIdle, IdleConnTimeout: restTime,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       restTime,
	}}
}

// get reads an answer of at most most bytes.
func (r *rest) get(ctx context.Context, most int64, form string, args ...any) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.address+"/rest/"+fmt.Sprintf(form, args...), nil)
	if err != nil {
		return nil, err
	}
	response, err := r.http.Do(request)
	if err != nil {
		return nil, errors.New("the node does not answer")
	}
	defer func() { _ = response.Body.Close() }()
	var b []byte
	if size := response.ContentLength; 0 <= size && size <= most { // a block is long: no buffer grows to its size
		b = make([]byte, size)
		_, err = io.ReadFull(response.Body, b)
	} else {
		b, err = io.ReadAll(io.LimitReader(response.Body, most+1))
	}
	switch {
	case err != nil:
		return nil, errors.New("the node has hung up in the middle of its answer")
	case int64(len(b)) > most:
		return nil, fmt.Errorf("the node's answer is longer than %d bytes", most)
	case response.StatusCode != http.StatusOK:
		return nil, statusError(response.StatusCode)
	}
	return b, nil
}

// statusError is an HTTP status that is not 200.
type statusError int

func (e statusError) Error() string {
	return fmt.Sprintf("the node answers with the HTTP status %d", int(e))
}

func (r *rest) block(ctx context.Context, hash chain.Hash) ([]byte, error) {
	b, err := r.get(ctx, chain.MaxBlock, "block/%s.bin", hash)
	var status statusError
	if errors.As(err, &status) && status == http.StatusNotFound {
		// Core without REST says the same of every path.
		if _, off := r.get(ctx, maxWaiting, "chaininfo.json"); off != nil {
			return nil, ErrREST
		}
	}
	return b, err
}

func (r *rest) part(ctx context.Context, hash chain.Hash, offset, size uint32) ([]byte, error) {
	b, err := r.get(ctx, int64(size), "blockpart/%s.bin?offset=%d&size=%d", hash, offset, size)
	var status statusError
	switch {
	case errors.As(err, &status) && status == http.StatusNotFound:
		return nil, ErrNotOffered
	case err != nil:
		return nil, fmt.Errorf("ask the node for a part of a block: %w", err)
	}
	return b, nil
}

func (r *rest) waiting(ctx context.Context, into *[]string) error {
	b, err := r.get(ctx, maxWaiting, "mempool/contents.json?verbose=false")
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return errors.New("the list of the mempool is no list")
	}
	return nil
}
