// Package nodeclient asks bitbox-node, the process that watches the Bitcoin node, over its unix
// socket (api/node/v1).
//
// bitbox-node is not part of the trusted base: it may have been taken over. So each answer is
// bounded and made printable here, and of its events only those about the node are passed on.
package nodeclient

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	nodev1 "github.com/BitBoxSwiss/bitbox-base/api/node/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/backlog"
	"github.com/BitBoxSwiss/bitbox-base/internal/harmless"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// DefaultSocket is where bitbox-node listens on the appliance.
const DefaultSocket = "/run/bitbox-node/node.sock"

// Bounds of what is taken from bitbox-node: more is cut off. They are those of
// api/base/v1/node.proto.
const (
	maxText   = 256 // bytes
	maxPeers  = 256
	maxBlocks = 100
	maxFees   = 16
	maxBranch = 17
	maxList   = 8 // any other list
	// maxReply is the longest reply in bytes, for parsing one can take 60 times its length. 256
	// peers with the longest texts take 130 KiB.
	maxReply = 160 << 10
)

// A bitbox-node restarts after each change of the node's settings and with each update, and systemd starts it
// again a second after a crash.
const (
	// restartTime is how long a question waits for one that was there a moment ago.
	restartTime = 5 * time.Second
	// askAgain is the pause between two tries.
	askAgain = 50 * time.Millisecond
)

// Client asks the bitbox-node at a path. It holds no connection between requests, and is safe
// for concurrent use. The nil Client is a Base without a node.
type Client struct {
	path    string
	client  *ipc.Client
	seen    atomic.Pointer[time.Time] // when bitbox-node was there last; nil: never
	restart time.Duration             // restartTime; tests replace it
}

// Dial returns a client for the socket at path. It does not connect yet.
func Dial(path string) *Client {
	return &Client{path: path, client: ipc.Dial(path), restart: restartTime}
}

// ErrNone is returned where there is no node to ask about.
var ErrNone = reason.New("this Base has no node")

// ErrAway is returned when bitbox-node should answer and does not.
var ErrAway = reason.New("the Base's node process does not answer")

// Node returns how the node is. A Base without a node says so; that is no error.
func (c *Client) Node(ctx context.Context) (*basev1.Node, error) {
	reply, err := c.call(ctx, nodev1.Verb_VERB_GET_NODE)
	switch {
	case errors.Is(err, ErrNone):
		return &basev1.Node{State: basev1.Node_STATE_NONE, Reason: ErrNone.Error()}, nil
	case errors.Is(err, ErrAway):
		return &basev1.Node{State: basev1.Node_STATE_STOPPED, Reason: ErrAway.Error()}, nil
	case err != nil:
		return nil, err
	}
	n := reply.GetNode()
	if n == nil || n.GetState() < basev1.Node_STATE_NONE || n.GetState() > basev1.Node_STATE_CURRENT {
		return nil, errOther
	}
	n.Progress = min(1, max(0, n.GetProgress()))
	return n, nil
}

// Peers returns the node's peers.
func (c *Client) Peers(ctx context.Context) (*basev1.ListPeersResponse, error) {
	reply, err := c.call(ctx, nodev1.Verb_VERB_LIST_PEERS)
	if err != nil {
		return nil, err
	}
	return reply.GetPeers(), nil
}

// Blocks returns the newest blocks, at most so many; 0: all that bitbox-node remembers.
func (c *Client) Blocks(ctx context.Context, most uint32) (*basev1.ListBlocksResponse, error) {
	reply, err := c.call(ctx, nodev1.Verb_VERB_LIST_BLOCKS)
	if err != nil {
		return nil, err
	}
	return &basev1.ListBlocksResponse{Blocks: newest(reply.GetBlocks().GetBlocks(), most)}, nil
}

func newest(blocks []*basev1.Block, most uint32) []*basev1.Block {
	if most > 0 && len(blocks) > int(min(most, maxBlocks)) {
		return blocks[len(blocks)-int(min(most, maxBlocks)):]
	}
	return blocks
}

// Fees returns what the node estimates.
func (c *Client) Fees(ctx context.Context) (*basev1.GetFeesResponse, error) {
	reply, err := c.call(ctx, nodev1.Verb_VERB_GET_FEES)
	if err != nil {
		return nil, err
	}
	return reply.GetFees(), nil
}

// Transaction asks for a transaction. A Base without a server for wallets says so; that is no error.
func (c *Client) Transaction(ctx context.Context, request *basev1.GetTransactionRequest) (*basev1.GetTransactionResponse, error) {
	reply, err := c.ask(ctx, nodev1.Verb_VERB_GET_TRANSACTION, request)
	if errors.Is(err, ErrNone) || errors.Is(err, ErrAway) {
		return &basev1.GetTransactionResponse{State: basev1.GetTransactionResponse_STATE_NOT_OFFERED, Reason: noWallets}, nil
	}
	if err != nil {
		return nil, err
	}
	t := reply.GetTransaction()
	confirmed := t.GetState() == basev1.GetTransactionResponse_STATE_CONFIRMED
	known := t.GetState() >= basev1.GetTransactionResponse_STATE_CONFIRMED && t.GetState() <= basev1.GetTransactionResponse_STATE_NOT_OFFERED
	if t == nil || !known || (confirmed && request.GetOffset() == 0) != (t.Place != nil) {
		return nil, errOther
	}
	return t, nil
}

// noWallets is why a transaction cannot be told if nobody answers.
const noWallets = "the Base has no server for wallets of its own that runs, and only that finds transactions"

// Headers asks for headers.
func (c *Client) Headers(ctx context.Context, request *basev1.ListHeadersRequest) (*basev1.ListHeadersResponse, error) {
	reply, err := c.ask(ctx, nodev1.Verb_VERB_LIST_HEADERS, request)
	if err != nil {
		return nil, err
	}
	if reply.GetHeaders() == nil {
		return nil, errOther
	}
	return reply.GetHeaders(), nil
}

// WatchBlocks hands the newest blocks to receive, at most so many (0: all), then each new block,
// until ctx ends or receive returns an error, which is returned.
func (c *Client) WatchBlocks(ctx context.Context, most uint32, receive func(*basev1.Block) error) error {
	return c.stream(ctx, nodev1.Verb_VERB_WATCH_BLOCKS, nil, func(reply *nodev1.NodeReply) error {
		blocks := newest(reply.GetBlocks().GetBlocks(), most)
		if b := reply.GetBlock(); b != nil {
			blocks = append(blocks, b)
		}
		for _, b := range blocks {
			if err := receive(b); err != nil {
				return err
			}
		}
		return nil
	})
}

// WatchEvents hands what bitbox-node keeps after a place to receive, then each event, until ctx ends or
// receive returns an error, which is returned. Of an event only what is about the node is taken. Other
// kinds of events are not bitbox-node's to make: of them the number alone is passed on.
func (c *Client) WatchEvents(ctx context.Context, after backlog.Place, receive func(*nodev1.NodeEvent) error) error {
	content, err := proto.Marshal(&nodev1.WatchEvents{Run: after.Run, After: after.Number})
	if err != nil {
		return err
	}
	return c.stream(ctx, nodev1.Verb_VERB_WATCH_EVENTS, content, func(reply *nodev1.NodeReply) error {
		happened := reply.GetHappened()
		if happened == nil {
			return errOther
		}
		if event := happened.GetEvent(); isOurs(event) {
			happened.Event = &basev1.Event{Event: event.GetEvent()}
		} else {
			happened.Event = nil
		}
		return receive(happened)
	})
}

// isOurs tells whether an event is one that bitbox-node may make.
func isOurs(event *basev1.Event) bool {
	switch event.GetEvent().(type) {
	case *basev1.Event_NodeStopped, *basev1.Event_NodeBehind, *basev1.Event_NodeCaughtUp, *basev1.Event_NodeLonely,
		*basev1.Event_ChainReorganised, *basev1.Event_NodeDiskFilling, *basev1.Event_NodeUnmaintained:
		return true
	}
	return false
}

var errOther = reason.New("the answer of the Base's node process is another one than was asked for")

// call asks for one reply, without a content.
func (c *Client) call(ctx context.Context, verb nodev1.Verb) (*nodev1.NodeReply, error) {
	return c.ask(ctx, verb, nil)
}

// ask asks for one reply. It waits for a bitbox-node that restarts.
func (c *Client) ask(ctx context.Context, verb nodev1.Verb, request proto.Message) (*nodev1.NodeReply, error) {
	content, err := proto.Marshal(request)
	if err != nil {
		return nil, err
	}
	for refused := false; ; {
		reply, err := c.once(ctx, verb, content)
		switch {
		case errors.Is(err, ipc.ErrRefused) && !refused:
			refused = true // it has ended in the middle of the answer, or refuses for good
		case (errors.Is(err, ErrNone) || errors.Is(err, ErrAway)) && c.restarts():
		default:
			return reply, err
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// restarts tells that bitbox-node is to be expected back.
func (c *Client) restarts() bool {
	if c == nil {
		return false
	}
	seen := c.seen.Load()
	return seen != nil && time.Since(*seen) < c.restart
}

// sees notes that bitbox-node is there, or was until now.
func (c *Client) sees() {
	now := time.Now()
	c.seen.Store(&now)
}

// once asks for one reply, once.
func (c *Client) once(ctx context.Context, verb nodev1.Verb, content []byte) (*nodev1.NodeReply, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var reply *nodev1.NodeReply
	err := c.stream(ctx, verb, content, func(r *nodev1.NodeReply) error {
		reply = r
		return errEnough
	})
	switch {
	case errors.Is(err, errEnough):
		return reply, nil
	case err == nil:
		err = errOther
	}
	return nil, err
}

// errEnough ends a stream.
var errEnough = reason.New("that was the last reply that is needed")

// stream hands each reply, bounded, to receive.
func (c *Client) stream(ctx context.Context, verb nodev1.Verb, content []byte, receive func(*nodev1.NodeReply) error) error {
	if c == nil {
		return ErrNone
	}
	for b, err := range c.client.Stream(ctx, uint16(verb), content) {
		switch {
		case errors.Is(err, ipc.ErrNotRunning) && c.missing():
			return ErrNone
		case errors.Is(err, ipc.ErrNotRunning):
			return ErrAway
		case err == nil, errors.Is(err, ipc.ErrRefused):
			c.sees()
		}
		if err != nil {
			return reason.Errorf("ask the Base's node process: %w", err)
		}
		reply, err := Parse(b)
		if err != nil {
			return err
		}
		if err := receive(reply); err != nil {
			return err
		}
	}
	return nil
}

// Parse reads a reply, and bounds it.
func Parse(b []byte) (*nodev1.NodeReply, error) {
	reply := &nodev1.NodeReply{}
	if len(b) > maxReply || proto.Unmarshal(b, reply) != nil {
		return nil, errOther
	}
	bound(reply.ProtoReflect())
	return reply, nil
}

// missing tells that there is no socket, and so no bitbox-node on this Base.
func (c *Client) missing() bool {
	_, err := os.Lstat(c.path)
	return errors.Is(err, fs.ErrNotExist)
}

// bound makes every text in a message short and printable, cuts its lists, and takes away numbers
// and times that are none, and what this version does not know.
func bound(m protoreflect.Message) {
	m.SetUnknown(nil)
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsList():
			list := value.List()
			list.Truncate(min(list.Len(), longest(field)))
			for i := range list.Len() {
				switch field.Kind() {
				case protoreflect.MessageKind:
					bound(list.Get(i).Message())
				case protoreflect.StringKind:
					list.Set(i, protoreflect.ValueOfString(text(list.Get(i).String())))
				}
			}
		case field.Kind() == protoreflect.MessageKind:
			if at, ok := value.Message().Interface().(*timestamppb.Timestamp); ok && !at.IsValid() {
				m.Clear(field)
				return true
			}
			bound(value.Message())
		case field.Kind() == protoreflect.DoubleKind && (math.IsNaN(value.Float()) || math.IsInf(value.Float(), 0)):
			m.Clear(field)
		case field.Kind() == protoreflect.StringKind:
			m.Set(field, protoreflect.ValueOfString(text(value.String())))
		}
		return true
	})
}

func text(s string) string { return harmless.Cut(harmless.Line(s), maxText) }

// longest is how many entries of a list are taken.
func longest(field protoreflect.FieldDescriptor) int {
	switch field.Kind() {
	case protoreflect.MessageKind:
	case protoreflect.BytesKind:
		return maxBranch
	default:
		return maxList
	}
	switch field.Message().Name() {
	case "Peer":
		return maxPeers
	case "Block":
		return maxBlocks
	case "Fee":
		return maxFees
	}
	return maxList
}
