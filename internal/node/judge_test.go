package node

import (
	"math"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func atHeight(height uint64, inbound bool) *basev1.Peer {
	return &basev1.Peer{Height: &height, Inbound: inbound}
}

func TestHowFarANodeIsFollowsFromWhatIsKnown(t *testing.T) {
	headers := func(n uint64) *uint64 { return &n }
	const mainnet, regtest = basev1.Network_NETWORK_MAINNET, basev1.Network_NETWORK_REGTEST
	const behind, current = basev1.Node_STATE_BEHIND, basev1.Node_STATE_CURRENT
	oneLies := []*basev1.Peer{atHeight(100, false), atHeight(maxHeight, false), atHeight(101, false)}
	comers := []*basev1.Peer{atHeight(maxHeight, true), atHeight(maxHeight, true), atHeight(100, false)}
	for what, c := range map[string]struct {
		network  basev1.Network
		headers  *uint64
		old      time.Duration
		syncing  bool
		own      float64
		peers    []*basev1.Peer
		state    basev1.Node_State
		target   uint64
		progress float64
	}{
		"all is there":                       {mainnet, headers(100), time.Minute, false, 0.9999, nil, current, 100, 1},
		"a block is on its way":              {mainnet, headers(106), time.Minute, false, 1, nil, current, 106, 1},
		"headers run ahead":                  {mainnet, headers(200), time.Minute, false, 0.3, nil, behind, 200, 0.3},
		"it says so itself":                  {mainnet, headers(100), time.Minute, true, 0.5, nil, behind, 100, 0.5},
		"the best block is old":              {mainnet, headers(100), 4 * time.Hour, false, 0.99, nil, behind, 100, 0.99},
		"regtest is old":                     {regtest, headers(100), 9999 * time.Hour, true, 1, nil, current, 100, 1},
		"btcd: peers are ahead":              {regtest, nil, 0, false, -1, []*basev1.Peer{atHeight(400, false)}, behind, 400, 0.25},
		"btcd: one of three lies":            {regtest, nil, 0, false, -1, oneLies, current, 101, 1},
		"btcd: inbound ones do not count":    {regtest, nil, 0, false, -1, comers, current, 100, 1},
		"btcd: inbound ones, for all it has": {regtest, nil, 0, false, -1, []*basev1.Peer{atHeight(200, true)}, behind, 200, 0.5},
		"btcd: peers are behind":             {regtest, nil, 0, false, -1, []*basev1.Peer{atHeight(3, false)}, current, 100, 1},
		"btcd: no peers":                     {regtest, nil, 0, false, -1, nil, current, 100, 1},
	} {
		said := &basev1.Node{Network: c.network, Height: 100, Headers: c.headers, BestBlockTime: timestamppb.New(noon.Add(-c.old))}
		n := judge(&Look{Node: said, Syncing: c.syncing, Progress: c.own, Peers: c.peers}, noon)
		if n.GetState() != c.state || n.GetTarget() != c.target || n.GetProgress() != c.progress {
			t.Errorf("%s: %v, %d, %v; want %v, %d, %v", what, n.GetState(), n.GetTarget(), n.GetProgress(), c.state, c.target, c.progress)
		}
	}
}

func TestNumbersThatCannotBeAreRefused(t *testing.T) {
	for _, height := range []int64{-1, maxHeight + 1, math.MaxInt64, math.MinInt64} {
		if _, err := Height(height); err == nil {
			t.Errorf("the height %d was taken", height)
		}
	}
	for _, hash := range []string{"", "00", "zz" + string(make([]byte, 62)), "../../etc/passwd", "\x1b[2J"} {
		if Hash(hash) == nil {
			t.Errorf("the hash %q was taken", hash)
		}
	}
	for share, want := range map[float64]float64{math.Inf(1): 1, math.Inf(-1): 0, -3: 0, 0.5: 0.5, 7: 1} {
		if got := Share(share); got != want {
			t.Errorf("%v became %v", share, got)
		}
	}
	if Share(math.NaN()) != 0 || Count(-5) != 0 {
		t.Error("what is no number, or below 0, was taken")
	}
}

func TestVersionsThatGetNoFixesAreTold(t *testing.T) {
	for version, want := range map[[2]string]bool{
		{"Bitcoin Core", "28.1.0"}: true, {"Bitcoin Core", "29.4.0"}: true, {"Bitcoin Core", "30.0.0"}: false, {"Bitcoin Core", "31.0.0"}: false,
		{"Bitcoin Core (Knots:20260508)", "29.4.3"}: false, {"Bitcoin Core (Knots:20240801)", "27.1.0"}: true,
		{"btcd", "0.25.0"}: true, {"btcd", "0.26.2"}: false, {"btcd", "1.0.0"}: false,
		{"Bitcoin Core", ""}: false, {"Bitcoin Core", "99999999999999999999.1"}: false, {"something", "0.1"}: false,
	} {
		if got := unmaintained(version[0], version[1], time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)); got != want {
			t.Errorf("%s: %v", version, got)
		}
	}
}

func TestEstimatesAreOfWhatMovesTowardsItsEnd(t *testing.T) {
	for what, c := range map[string]struct {
		values []float64 // one each minute
		to     float64
		left   time.Duration
		known  bool
	}{
		"half in ten minutes": {[]float64{0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5}, 1, 10 * time.Minute, true},
		"a disk fills":        {[]float64{100, 90, 80, 70}, 0, 7 * time.Minute, true},
		"a disk empties":      {[]float64{70, 80, 90}, 0, 0, false},
		"it stands still":     {[]float64{0.5, 0.5, 0.5, 0.5}, 1, 0, false},
		"too little is known": {[]float64{0.1, 0.2}, 1, 0, false},
		"nothing is known":    {nil, 1, 0, false},
		"longer than a life":  {[]float64{0.1, 0.1, 0.1 + 1e-12}, 1, 0, false},
	} {
		trend := newSyncTrend()
		for i, value := range c.values {
			trend.add(time.Duration(i)*time.Minute, value)
		}
		left, known := trend.until(c.to)
		if known != c.known || (left-c.left).Abs() > time.Second {
			t.Errorf("%s: %v, %v; want %v, %v", what, left, known, c.left, c.known)
		}
	}
	trend := newDiskTrend()
	for i := range 100_000 {
		trend.add(time.Duration(i)*time.Minute, float64(i))
	}
	if n := len(trend.samples); n > 7*24+1 {
		t.Errorf("%d samples are kept", n)
	}
}
