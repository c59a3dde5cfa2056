// Package jsonrpc asks a node on this machine by JSON-RPC over HTTP, many questions in one
// request (jsonrpc.go), and has those questions that Bitcoin Core and btcd share
// (questions.go).
//
// The node is taken for hostile: an answer has a deadline and a size limit, no redirect is
// followed, nothing is decompressed, and no proxy of the environment is used. Credentials
// stay in this package: they are read from a file for each request, because a node makes new
// ones at each start, and no error or log line has them.
package jsonrpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/harmless"
)

const (
	// MaxAnswer is the longest answer in bytes.
	MaxAnswer = 8 << 20
	// CallTime is how long a request may take.
	CallTime = 20 * time.Second

	maxHeader  = 16 << 10
	maxCookie  = 512
	dialTime   = 5 * time.Second
	maxMessage = 120
)

// Config says where a node listens, and how it knows us.
type Config struct {
	// Address is where it listens. It must be 127.0.0.1 with a port.
	Address string
	// Credentials is the path of a file with "user:password", such as Bitcoin Core's cookie.
	Credentials string
	// TLS, if set, is how its certificate is checked; nil: HTTP without TLS.
	TLS *tls.Config
	// Post takes the place of HTTP, in tests: it gets a request and returns its answer.
	Post func(body []byte) ([]byte, error)
}

// Client asks one node. It holds no connection between requests.
type Client struct {
	config Config
	http   *http.Client
}

// New returns a Client. It does not connect yet.
func New(config Config) (*Client, error) {
	at, err := netip.ParseAddrPort(config.Address)
	if err != nil || at.Addr() != netip.AddrFrom4([4]byte{127, 0, 0, 1}) || at.Port() == 0 {
		return nil, fmt.Errorf("the address of a node is 127.0.0.1 and a port, not %q", harmless.Word(config.Address))
	}
	dialer := net.Dialer{Timeout: dialTime}
	return &Client{config, &http.Client{
		Transport: &http.Transport{
			// Whatever the request says, it goes nowhere else.
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "tcp4", config.Address)
			},
			TLSClientConfig:        config.TLS,
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeader,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       CallTime,
	}}, nil
}

// Call is one question.
type Call struct {
	Method string
	Params []any
	// Into takes the answer, as json.Unmarshal does.
	Into any
	// Err is what the node answers in place of it: nil, an *Error, or that the answer is not
	// what was expected.
	Err error
}

// Error is the node's refusal of one question.
type Error struct {
	Code    int
	Message string // one short printable line
}

// Error returns what the node said.
func (e *Error) Error() string { return fmt.Sprintf("the node answers: %s (%d)", e.Message, e.Code) }

// Why a request as a whole has failed.
var (
	// ErrNotRunning: nobody listens there.
	ErrNotRunning = errors.New("nobody listens at the node's address")
	// ErrCredentials: the node does not accept the credentials, or there is no file with them.
	ErrCredentials = errors.New("the node does not accept these credentials")
	// ErrForbidden: the node does not let this user ask one of the questions.
	ErrForbidden = errors.New("the node does not let this user ask that")
	// ErrBusy: the node has too many questions to answer.
	ErrBusy = errors.New("the node has too much to do")
	// ErrSlow: the node did not answer in time.
	ErrSlow = errors.New("the node did not answer in time")
	// ErrCertificate: another program shows its certificate.
	ErrCertificate = errors.New("the certificate is not the node's")
	// ErrGarbage: the answer cannot be read.
	ErrGarbage = errors.New("the answer of the node cannot be read")
)

// Batch asks all questions in one request. An error means that none was answered; what the node
// says about each is in Call.Err.
func (c *Client) Batch(ctx context.Context, calls ...*Call) error {
	type question struct {
		Version string `json:"jsonrpc"`
		ID      int    `json:"id"`
		Method  string `json:"method"`
		Params  []any  `json:"params"`
	}
	questions := make([]question, 0, len(calls))
	for id, call := range calls {
		params := call.Params
		if params == nil {
			params = []any{}
		}
		questions = append(questions, question{"2.0", id, call.Method, params})
	}
	body, err := json.Marshal(questions)
	if err != nil {
		return fmt.Errorf("ask the node: %w", err)
	}
	answer, err := c.post(ctx, body)
	if err != nil {
		return fmt.Errorf("ask the node: %w", err)
	}
	if err := spread(answer, calls); err != nil {
		return fmt.Errorf("ask the node: %w", err)
	}
	return nil
}

// post sends a request and returns the body of the answer.
func (c *Client) post(ctx context.Context, body []byte) ([]byte, error) {
	if c.config.Post != nil {
		return c.config.Post(body)
	}
	user, password, err := readCredentials(c.config.Credentials)
	if err != nil {
		return nil, err
	}
	scheme := "http"
	if c.config.TLS != nil {
		scheme = "https"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, scheme+"://"+c.config.Address+"/", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.SetBasicAuth(user, password)
	request.Header.Set("Content-Type", "application/json")
	response, err := c.http.Do(request)
	if err != nil {
		return nil, failure(err)
	}
	defer func() { _ = response.Body.Close() }()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized:
		return nil, ErrCredentials
	case http.StatusForbidden:
		return nil, ErrForbidden
	case http.StatusServiceUnavailable:
		return nil, ErrBusy
	default:
		return nil, fmt.Errorf("%w: it has the HTTP status %d", ErrGarbage, response.StatusCode)
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, MaxAnswer+1))
	if err != nil {
		return nil, failure(err)
	}
	if len(answer) > MaxAnswer {
		return nil, fmt.Errorf("%w: it is longer than %d bytes", ErrGarbage, MaxAnswer)
	}
	return answer, nil
}

// failure says of which kind a failure is. The library's text may repeat the node's, so it is
// cut to one short printable line.
func failure(err error) error {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, ErrCertificate):
		return ErrCertificate
	case errors.As(err, &timeout) && timeout.Timeout():
		return ErrSlow
	case errors.Is(err, syscall.ECONNREFUSED):
		return ErrNotRunning
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("%w: it has hung up", ErrNotRunning)
	}
	return fmt.Errorf("%w: %s", ErrGarbage, short(err.Error()))
}

func short(text string) string { return harmless.Cut(harmless.Line(text), maxMessage) }

// spread hands each answer to its question.
func spread(answer []byte, calls []*Call) error {
	var replies []struct {
		ID     *int            `json:"id"`
		Result json.RawMessage `json:"result"`
		Error  *struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.Unmarshal(answer, &replies); err != nil {
		return fmt.Errorf("%w: it is no list of answers", ErrGarbage)
	}
	if len(replies) != len(calls) {
		return fmt.Errorf("%w: it has %d answers to %d questions", ErrGarbage, len(replies), len(calls))
	}
	answered := make([]bool, len(calls))
	for _, r := range replies {
		if r.ID == nil || *r.ID < 0 || *r.ID >= len(calls) || answered[*r.ID] {
			return fmt.Errorf("%w: it answers a question that was not asked, or one twice", ErrGarbage)
		}
		answered[*r.ID] = true
		call := calls[*r.ID]
		switch {
		case r.Error != nil:
			call.Err = &Error{r.Error.Code, short(r.Error.Message)}
		case len(r.Result) == 0 || string(r.Result) == "null":
			call.Err = fmt.Errorf("%w: %s has no result", ErrGarbage, call.Method)
		default:
			if err := json.Unmarshal(r.Result, call.Into); err != nil {
				call.Err = fmt.Errorf("%w: %s has another form", ErrGarbage, call.Method)
			}
		}
	}
	return nil
}

// readCredentials reads a file of the node's. It belongs to another user, so it may be anything.
func readCredentials(path string) (user, password string, err error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) {
		return "", "", fmt.Errorf("%w: there is no file with them; the node makes it when it starts", ErrNotRunning)
	}
	if err != nil {
		return "", "", fmt.Errorf("%w: the file with them cannot be opened", ErrCredentials)
	}
	defer func() { _ = file.Close() }()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", "", fmt.Errorf("%w: what should hold them is no file", ErrCredentials)
	}
	b, err := io.ReadAll(io.LimitReader(file, maxCookie+1))
	user, password, ok := strings.Cut(strings.TrimSpace(string(b)), ":")
	if err != nil || !ok || len(b) > maxCookie || user == "" || password == "" {
		return "", "", fmt.Errorf("%w: the file with them has another form", ErrCredentials)
	}
	return user, password, nil
}
