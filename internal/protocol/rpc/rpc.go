// Package rpc carries calls between an App and a Base on the records of an
// encrypted channel. It knows neither the channel nor the API: it needs a [Conn]
// that keeps the limits of records, and a table of [Method].
//
// # The Base's side
//
// [NewServer] takes the table, and [Server.Serve] serves one connection until it ends:
//
//	server, err := rpc.NewServer(rpc.Config{Logger: logger, Methods: []rpc.Method{
//		{Name: "bitbox.base.v1.InfoService.GetInfo", Allow: viewers, Deadline: 30 * time.Second, Handler: rpc.Unary(info.GetInfo)},
//		{Name: "bitbox.base.v1.EventsService.WatchEvents", Allow: viewers, Handler: rpc.ServerStream(events.WatchEvents)},
//	}})
//	go server.Serve(context.WithValue(ctx, key, session), conn, peer)
//
// The context of a handler is derived from the one given to Serve, so the caller's
// identity travels in it. The sessions of one App share a [Peer].
//
// # The App's side
//
// [NewSession] starts on a connection; [Call], [Watch] and [Upload] make the calls:
//
//	session := rpc.NewSession(conn)
//	info, err := rpc.Call[basev1.GetInfoResponse](ctx, session, "bitbox.base.v1.InfoService.GetInfo", &basev1.GetInfoRequest{})
//
// Both sides expect a hostile peer. docs/protocol.md, section "The RPC", specifies the
// wire format and all limits.
package rpc

import (
	"time"

	"google.golang.org/protobuf/proto"
)

// Conn is the channel below: authenticated, encrypted, made of records. A
// *noiseconn.Conn is one.
type Conn interface {
	// ReadRecord returns the next record, 1 to MaxRecord bytes. The caller owns
	// the slice. A passed deadline is no harm: the next call goes on.
	ReadRecord() ([]byte, error)
	// WriteRecord sends one record, and does not keep the slice.
	WriteRecord([]byte) error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	// Close ends both directions at once, also while a read or write is blocked.
	Close() error
}

// Limits of the protocol: an honest peer keeps them, and the session of another
// ends. The first five must be the same at both ends. The others stand where they bind: rates
// in peer.go, memory in server.go, times in link.go.
const (
	// MaxRecord is the largest frame, in bytes.
	MaxRecord = 16384
	// MaxCalls is how many calls of one session may be under way.
	MaxCalls = 32
	// Window is how many bytes of frames a call may have under way in each
	// direction before the receiver gives credit.
	Window = 64 << 10
	// MaxName is the length of the longest method name, in bytes.
	MaxName = 100
	// MaxText is the length of the longest error text, in bytes.
	MaxText = 512

	// MaxRequest is the largest message to a Base, in bytes; a [Method] may allow less.
	MaxRequest = 1 << 20
	// MaxAnswer is the largest message to an App, in bytes.
	MaxAnswer = 4 << 20
)

// message is a pointer to a generated message type.
type message[M any] interface {
	*M
	proto.Message
}
