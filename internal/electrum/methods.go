package electrum

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/history"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/index"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/mempool"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/session"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/source"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/jsonrpc"
	"github.com/BitBoxSwiss/bitbox-base/internal/version"
)

// versions are those of the protocol that are spoken, in their order.
var versions = []string{"1.4", "1.4.1", "1.4.2", "1.4.3", "1.6"}

// listed is the first version that has headers as a list.
const listed = "1.6"

// MaxHeaders is how many headers one request gets (as ElectrumX: one period of difficulty).
const MaxHeaders = 2016

// packageMethod is there only if the node takes several transactions at once.
const packageMethod = "blockchain.transaction.broadcast_package"

// maxPackage is how many transactions Bitcoin Core takes at once.
const maxPackage = 25

// call is a request that is being answered.
type call struct {
	*session.Session
	wallet *wallet
	params []json.RawMessage
}

// methods is the one table of what a wallet may ask. An optional method never fails: Electrum
// leaves a server that answers one of them with an error.
var methods = map[string]method{
	"server.version":          (*Server).version,
	"server.ping":             constant(nil),
	"server.banner":           constant(""),
	"server.donation_address": constant(""),
	"server.peers.subscribe":  constant([]any{}),
	"server.add_peer":         constant(false),
	"server.features":         (*Server).features,

	"blockchain.headers.subscribe": (*Server).followHeaders,
	"blockchain.block.header":      (*Server).header,
	"blockchain.block.headers":     (*Server).headers,

	"blockchain.scripthash.subscribe":   ofScript((*Server).subscribe),
	"blockchain.scripthash.unsubscribe": ofScript((*Server).unfollow),
	"blockchain.scripthash.get_history": ofScript((*Server).history),
	"blockchain.scripthash.get_mempool": ofScript((*Server).waiting),
	"blockchain.scripthash.get_balance": ofScript((*Server).balance),
	"blockchain.scripthash.listunspent": ofScript((*Server).unspent),

	"blockchain.transaction.get":         (*Server).transaction,
	"blockchain.transaction.get_merkle":  (*Server).merkle,
	"blockchain.transaction.id_from_pos": (*Server).idFromPosition,
	"blockchain.transaction.broadcast":   (*Server).broadcast,
	packageMethod:                        (*Server).broadcastPackage,

	"blockchain.estimatefee":    (*Server).estimate,
	"blockchain.relayfee":       (*Server).relayFee,
	"mempool.get_info":          (*Server).mempoolInfo,
	"mempool.get_fee_histogram": (*Server).histogram,
}

// method answers a request.
type method func(s *Server, ctx context.Context, c *call) (any, error)

// Names implements session.Handler. Sparrow names the parameters of server.version, and no others.
func (s *Server) Names(name string) []string {
	if name == "server.version" {
		return []string{"client_name", "protocol_version"}
	}
	return nil
}

// Call implements session.Handler.
func (s *Server) Call(ctx context.Context, c *session.Session, name string, params []json.RawMessage) (any, error) {
	w, known := c.State.(*wallet)
	if !known {
		w = &wallet{version: versions[0], scripts: map[chain.Hash]bool{}}
		c.State = w
	}
	m := methods[name]
	if m == nil || (name == packageMethod && !s.config.Node.Packages()) {
		return nil, session.ErrUnknown
	}
	return m(s, ctx, &call{c, w, params})
}

func constant(value any) method {
	return func(*Server, context.Context, *call) (any, error) { return value, nil }
}

// ofScript is for methods that have a script's hash as their parameter.
func ofScript(m func(*Server, context.Context, *session.Session, chain.Hash) (any, error)) method {
	return func(s *Server, ctx context.Context, c *call) (any, error) {
		hash, err := c.hash(0)
		if err != nil {
			return nil, err
		}
		return m(s, ctx, c.Session, hash)
	}
}

// param reads the parameter at a position.
func (c *call) param(at int, into any) error {
	if at >= len(c.params) || json.Unmarshal(c.params[at], into) != nil {
		return session.BadParams("parameter %d is missing or has another form", at+1)
	}
	return nil
}

// hash reads a parameter that is a hash.
func (c *call) hash(at int) (h chain.Hash, err error) {
	var text string
	if err := c.param(at, &text); err != nil {
		return h, err
	}
	if h, err = chain.ParseHash(text); err != nil {
		return h, session.BadParams("%q is no hash", text[:min(len(text), 64)])
	}
	return h, nil
}

// number reads a parameter that is not negative.
func (c *call) number(at int) (n uint32, err error) { return n, c.param(at, &n) }

// flag reads a parameter that may be missing.
func (c *call) flag(at int) (is bool) {
	return c.param(at, &is) == nil && is
}

// version agrees on a version: params are the wallet's name, and a version or the lowest and the
// highest.
func (s *Server) version(_ context.Context, c *call) (any, error) {
	low, high := versions[0], versions[0]
	if len(c.params) > 1 {
		var pair []string
		switch {
		case c.param(1, &low) == nil:
			high = low
		case c.param(1, &pair) == nil && len(pair) == 2:
			low, high = pair[0], pair[1]
		default:
			return nil, session.BadParams("the version is a text or a list of two")
		}
	}
	chosen, ok := negotiate(low, high)
	if !ok {
		return nil, session.Refused("unsupported protocol version; this server speaks %s to %s", versions[0], versions[len(versions)-1])
	}
	c.wallet.version = chosen
	return []string{software(), chosen}, nil
}

func software() string { return "bitbox-node " + version.Software }

// negotiate chooses the highest version between two.
func negotiate(low, high string) (chosen string, ok bool) {
	for _, v := range versions {
		if !older(v, low) && !older(high, v) {
			chosen, ok = v, true
		}
	}
	return chosen, ok
}

// older compares two versions. Parts that are missing, or no numbers, are 0.
func older(a, b string) bool {
	pa, pb := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(pa), len(pb)) {
		if na, nb := part(pa, i), part(pb, i); na != nb {
			return na < nb
		}
	}
	return false
}

func part(parts []string, at int) int {
	if at >= len(parts) {
		return 0
	}
	n, err := strconv.Atoi(parts[at])
	if err != nil {
		return 0
	}
	return n
}

func (s *Server) features(context.Context, *call) (any, error) {
	return map[string]any{
		"genesis_hash": s.config.Node.First().String(), "hash_function": "sha256", "hosts": map[string]any{}, "pruning": nil,
		"server_version": software(), "protocol_min": versions[0], "protocol_max": versions[len(versions)-1],
	}, nil
}

// chain is the chain that wallets see.
func (s *Server) chain() *index.View {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.view
}

// tip is the newest block as wallets get it.
func (s *Server) tip(view *index.View) (any, error) {
	height := view.Len() - 1
	header, err := view.Header(height)
	return map[string]any{"height": height, "hex": hex.EncodeToString(header[:])}, err
}

func (s *Server) followHeaders(_ context.Context, c *call) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[c.Session] = true
	c.wallet.told = s.view.Hash(s.view.Len() - 1)
	return s.tip(s.view)
}

// noProof refuses proofs up to a checkpoint: they need the hash of all headers.
func (c *call) noProof(at int) error {
	if n, err := c.number(at); len(c.params) > at && (err != nil || n != 0) {
		return session.Refused("this server has no proofs for checkpoints; leave cp_height out")
	}
	return nil
}

func (s *Server) header(_ context.Context, c *call) (any, error) {
	height, err := c.number(0)
	if err != nil {
		return nil, err
	}
	if err := c.noProof(1); err != nil {
		return nil, err
	}
	view := s.chain()
	if height >= view.Len() {
		return nil, session.Refused("there is no block %d yet", height)
	}
	header, err := view.Header(height)
	return hex.EncodeToString(header[:]), err
}

func (s *Server) headers(ctx context.Context, c *call) (any, error) {
	first, err := c.number(0)
	if err != nil {
		return nil, err
	}
	count, err := c.number(1)
	if err != nil {
		return nil, err
	}
	if err := c.noProof(2); err != nil {
		return nil, err
	}
	view := s.chain()
	count = min(count, MaxHeaders, view.Len()-min(first, view.Len()))
	const each = 10 // headers cost as much as one request
	if err := c.Charge(ctx, int(count)/each); err != nil {
		return nil, err
	}
	list := make([]string, 0, count)
	for height := first; height < first+count; height++ {
		header, err := view.Header(height)
		if err != nil {
			return nil, err
		}
		list = append(list, hex.EncodeToString(header[:]))
	}
	answer := map[string]any{"count": count, "max": MaxHeaders}
	if older(c.wallet.version, listed) {
		answer["hex"] = strings.Join(list, "")
	} else {
		answer["headers"] = list
	}
	return answer, nil
}

// entry is a transaction as wallets get it.
type entry struct {
	ID     string  `json:"tx_hash"`
	Height int64   `json:"height"`
	Fee    *uint64 `json:"fee,omitempty"` // satoshis; only of one that waits
}

func entriesOf(waiting []mempool.Entry) []entry {
	list := make([]entry, 0, len(waiting))
	for _, e := range waiting {
		list = append(list, entry{e.ID.String(), int64(e.Height), &e.Fee})
	}
	return list
}

func (s *Server) unfollow(_ context.Context, c *session.Session, hash chain.Hash) (any, error) {
	return s.unsubscribe(c, hash), nil
}

func (s *Server) history(ctx context.Context, c *session.Session, hash chain.Hash) (any, error) {
	h, waiting, err := s.now(ctx, c, hash)
	if err != nil {
		return nil, err
	}
	list := make([]entry, 0, len(h.Entries)+len(waiting))
	for _, e := range h.Entries {
		list = append(list, entry{ID: e.ID.String(), Height: int64(e.Height)})
	}
	return append(list, entriesOf(waiting)...), nil
}

func (s *Server) waiting(ctx context.Context, c *session.Session, hash chain.Hash) (any, error) {
	_, waiting, err := s.now(ctx, c, hash)
	return entriesOf(waiting), err
}

// coins are the outputs that nobody has spent; the ones that wait have the height 0.
func (s *Server) coins(ctx context.Context, c *session.Session, hash chain.Hash) (coins []history.Coin, confirmed uint64, err error) {
	h, _, err := s.now(ctx, c, hash)
	if err != nil {
		return nil, 0, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, coin := range h.Coins {
		if coin.SpentAt == 0 {
			confirmed += coin.Value
		}
	}
	for _, coin := range append(h.Coins, s.mempool.Coins(hash)...) {
		if coin.SpentAt == 0 && !s.mempool.Spent(coin.Outpoint) {
			coins = append(coins, coin)
		}
	}
	return coins, confirmed, nil
}

func (s *Server) balance(ctx context.Context, c *session.Session, hash chain.Hash) (any, error) {
	coins, confirmed, err := s.coins(ctx, c, hash)
	sum := int64(0)
	for _, coin := range coins {
		sum += int64(coin.Value)
	}
	return map[string]int64{"confirmed": int64(confirmed), "unconfirmed": sum - int64(confirmed)}, err
}

func (s *Server) unspent(ctx context.Context, c *session.Session, hash chain.Hash) (any, error) {
	coins, _, err := s.coins(ctx, c, hash)
	type coin struct {
		ID     string `json:"tx_hash"`
		Index  uint32 `json:"tx_pos"`
		Height uint32 `json:"height"`
		Value  uint64 `json:"value"`
	}
	list := make([]coin, 0, len(coins))
	for _, o := range coins {
		list = append(list, coin{o.Outpoint.ID.String(), o.Outpoint.Index, o.Height, o.Value})
	}
	return list, err
}

// find finds a transaction in the mempool or in the chain; place is nil in the mempool.
func (s *Server) find(ctx context.Context, c *call, id chain.Hash) (tx chain.Tx, place *index.Place, view *index.View, err error) {
	err = s.reading(ctx, c.Session, func(ctx context.Context, blocks history.Blocks) error {
		s.mu.RLock()
		waits := s.mempool.Has(id)
		view = s.view
		s.mu.RUnlock()
		if waits {
			if entries, err := s.config.Node.Entries(ctx, []chain.Hash{id}); err == nil && len(entries) == 1 {
				tx = entries[0].Tx
				return nil
			}
		}
		found, at, ok, err := history.Find(ctx, blocks, view, id)
		if err == nil && !ok {
			return session.NodeRefused("No such mempool or blockchain transaction")
		}
		tx, place = found, &at
		return err
	})
	return tx, place, view, err
}

func (s *Server) transaction(ctx context.Context, c *call) (any, error) {
	id, err := c.hash(0)
	if err != nil {
		return nil, err
	}
	tx, place, view, err := s.find(ctx, c, id)
	if err != nil {
		return nil, err
	}
	raw := hex.EncodeToString(tx.Raw)
	if !c.flag(1) {
		return raw, nil
	}
	fields, err := s.config.Node.Decode(ctx, tx.Raw)
	if err != nil {
		return nil, err
	}
	if fields == nil {
		return nil, errors.New("the node says nothing about a transaction")
	}
	fields["hex"] = raw
	for name, value := range sizesOf(tx) { // btcd does not say them
		if fields[name] == nil {
			fields[name] = value
		}
	}
	if place != nil {
		header, err := view.Header(place.Height)
		if err != nil {
			return nil, err
		}
		fields["blockhash"], fields["confirmations"] = place.Block.String(), view.Len()-place.Height
		fields["time"], fields["blocktime"] = header.Time(), header.Time()
	}
	return fields, nil
}

// sizesOf is what wallets read beside what every node says: sizes in bytes, virtual bytes and units of
// weight, and the hash of all of it.
func sizesOf(tx chain.Tx) map[string]any {
	const scale = 4 // a byte that is no witness weighs so much (BIP 141)
	size, weight := len(tx.Raw), len(tx.Raw)+(scale-1)*len(tx.Stripped())
	return map[string]any{"size": size, "weight": weight, "vsize": (weight + scale - 1) / scale, "hash": chain.Double(tx.Raw).String()}
}

// ids reads the IDs of a block.
func (s *Server) ids(ctx context.Context, c *call, height uint32) ([]chain.Hash, error) {
	view := s.chain()
	if height >= view.Len() {
		return nil, session.Refused("there is no block %d yet", height)
	}
	const cost = 10 // a whole block is read
	if err := c.Charge(ctx, cost); err != nil {
		return nil, err
	}
	var ids []chain.Hash
	err := s.reading(ctx, c.Session, func(ctx context.Context, blocks history.Blocks) error {
		raw, err := blocks.Block(ctx, view.Hash(height))
		if err != nil {
			return err
		}
		b, err := chain.ParseBlock(raw)
		if err == nil {
			ids = b.IDs()
		}
		return err
	})
	return ids, err
}

func texts(hashes []chain.Hash) []string {
	list := make([]string, len(hashes))
	for i, h := range hashes {
		list[i] = h.String()
	}
	return list
}

func (s *Server) merkle(ctx context.Context, c *call) (any, error) {
	id, err := c.hash(0)
	if err != nil {
		return nil, err
	}
	height, err := c.number(1)
	if err != nil {
		return nil, err
	}
	ids, err := s.ids(ctx, c, height)
	if err != nil {
		return nil, err
	}
	at := slices.Index(ids, id)
	if at < 0 {
		return nil, session.Refused("the transaction is not in block %d", height)
	}
	_, branch := chain.Branch(ids, at)
	return map[string]any{"block_height": height, "pos": at, "merkle": texts(branch)}, nil
}

func (s *Server) idFromPosition(ctx context.Context, c *call) (any, error) {
	height, err := c.number(0)
	if err != nil {
		return nil, err
	}
	at, err := c.number(1)
	if err != nil {
		return nil, err
	}
	ids, err := s.ids(ctx, c, height)
	if err != nil {
		return nil, err
	}
	if int64(at) >= int64(len(ids)) {
		return nil, session.Refused("block %d has no transaction %d", height, at)
	}
	if !c.flag(2) {
		return ids[at].String(), nil
	}
	_, branch := chain.Branch(ids, int(at))
	return map[string]any{"tx_hash": ids[at].String(), "merkle": texts(branch)}, nil
}

// maxRaw is the longest transaction that nodes relay, in hexadecimal digits.
const maxRaw = 800_000

// rawParam checks a transaction before the node gets it.
func rawParam(text string) error {
	raw, err := hex.DecodeString(text)
	if err == nil && len(text) <= maxRaw {
		_, err = chain.ParseTx(raw)
	}
	if err != nil || len(text) > maxRaw {
		return session.BadParams("this is no transaction")
	}
	return nil
}

// refusal tells a wallet why the node does not take a transaction.
func refusal(err error) error {
	var refused *jsonrpc.Error
	if errors.As(err, &refused) {
		return session.NodeRefused("the transaction was rejected by network rules.\n\n%s", refused.Message)
	}
	return err
}

func (s *Server) broadcast(ctx context.Context, c *call) (any, error) {
	var raw string
	if err := c.param(0, &raw); err != nil {
		return nil, err
	}
	if err := rawParam(raw); err != nil {
		return nil, err
	}
	const cost = 10
	if err := c.Charge(ctx, cost); err != nil {
		return nil, err
	}
	id, err := s.config.Node.Broadcast(ctx, raw)
	if err != nil {
		return nil, refusal(err)
	}
	return id, nil
}

func (s *Server) broadcastPackage(ctx context.Context, c *call) (any, error) {
	var raws []string
	if err := c.param(0, &raws); err != nil || len(raws) == 0 || len(raws) > maxPackage {
		return nil, session.BadParams("a package has 1 to %d transactions", maxPackage)
	}
	for _, raw := range raws {
		if err := rawParam(raw); err != nil {
			return nil, err
		}
	}
	const cost = 10
	if err := c.Charge(ctx, cost*len(raws)); err != nil {
		return nil, err
	}
	answer, err := s.config.Node.BroadcastPackage(ctx, raws)
	if err != nil {
		return nil, refusal(err)
	}
	failed := []map[string]string{}
	for _, r := range answer.Results {
		if r.Error != "" {
			failed = append(failed, map[string]string{"txid": r.ID, "error": r.Error})
		}
	}
	result := map[string]any{"success": answer.Message == "success"}
	if len(failed) > 0 {
		result["errors"] = failed
	}
	return result, nil
}

// feeCache remembers what the node says of fees until a block or a transaction comes. Nobody asks
// the node while it holds the lock.
type feeCache struct {
	mu        sync.Mutex
	estimates map[uint32]float64
	mempool   *source.Mempool
	histogram [][2]float64
}

func (f *feeCache) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.estimates, f.mempool, f.histogram = nil, nil, nil
}

func (s *Server) estimate(ctx context.Context, c *call) (any, error) {
	blocks, err := c.number(0)
	if err != nil {
		return -1, nil
	}
	const most = 1008 // as Bitcoin Core
	blocks = min(max(blocks, 1), most)
	s.fees.mu.Lock()
	rate, known := s.fees.estimates[blocks]
	s.fees.mu.Unlock()
	if known {
		return rate, nil
	}
	rate = s.config.Node.Fee(ctx, blocks)
	s.fees.mu.Lock()
	defer s.fees.mu.Unlock()
	if s.fees.estimates == nil {
		s.fees.estimates = map[uint32]float64{}
	}
	s.fees.estimates[blocks] = rate
	return rate, nil
}

func (s *Server) mempoolFees(ctx context.Context) source.Mempool {
	s.fees.mu.Lock()
	known := s.fees.mempool
	s.fees.mu.Unlock()
	if known == nil {
		m := s.config.Node.Mempool(ctx)
		known = &m
	}
	s.fees.mu.Lock()
	defer s.fees.mu.Unlock()
	s.fees.mempool = known
	return *known
}

func (s *Server) relayFee(ctx context.Context, _ *call) (any, error) {
	return s.mempoolFees(ctx).MinRelay, nil
}

func (s *Server) mempoolInfo(ctx context.Context, _ *call) (any, error) {
	return s.mempoolFees(ctx), nil
}

func (s *Server) histogram(context.Context, *call) (any, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.fees.mu.Lock()
	defer s.fees.mu.Unlock()
	if s.fees.histogram == nil {
		s.fees.histogram = s.mempool.Histogram()
	}
	return s.fees.histogram, nil
}
