package api

import (
	"context"
	"maps"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/baserpc"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// method is a row of the table of methods.
type method struct {
	// least is the least role that may call it.
	least basev1.Role
	// holds says which places a call takes; none: only the session limits it.
	holds holds
	// deadline ends the call; 0: it is a stream, which lasts as long as its App wants.
	deadline time.Duration
	// size is the largest message of a request, in bytes; 0: the capacity of one frame.
	size int
	// goesOn: the call continues when its App leaves. Changes continue, so that the log of
	// changes has their real result.
	goesOn bool
}

// holds are the kinds of limited places, per App and for all Apps.
type holds int

const (
	// asks: the call holds a connection to the system helper for a moment. Without a limit an App
	// with a lesser role could take all of them, and an owner's lockdown would find none. Methods
	// for owners only have no limit: they must not wait behind anything.
	asks holds = iota + 1
	// follows: the call holds a connection to the system helper for as long as the App wants.
	// Another one is refused instead of waiting, because nobody knows how long that would take.
	follows
	// watches: the call waits for events.
	watches
	// asksNode and followsNode are asks and follows of a connection to bitbox-node.
	asksNode
	followsNode
)

// Limits of the places.
const (
	// maxAsking is how many calls that ask one App has; further ones wait. registry.MaxPairings
	// times as many are fewer than the connections that the system helper gives the Middleware
	// (ipc.MaxPerUser): the rest is for owners.
	maxAsking = 2
	// maxFollowing is how many calls that follow one App has. The limit for all is
	// helperclient.MaxMiddlewareReaders.
	maxFollowing = 2
	// keptFollowing are those of all places that only owners get: four operators could hold
	// the others.
	keptFollowing = maxFollowing
	// maxWatching is how many streams of events one App has, and maxWatchingAll how many all of
	// them have: each event is sent to each stream.
	maxWatching    = 16
	maxWatchingAll = 256
	// keptWatching are those of maxWatchingAll that only owners get.
	keptWatching = 2 * maxWatching
	// maxNodeReaders is how many calls of all Apps follow the node. With those that ask, and the
	// Middleware itself, they are fewer than the connections that bitbox-node gives the
	// Middleware (ipc.MaxPerUser).
	maxNodeReaders = 8
)

// newClasses makes the places.
func newClasses() map[holds]*rpc.Class {
	owners := func(ctx context.Context) bool { return sessionOf(ctx).IsOwner() }
	return map[holds]*rpc.Class{
		asks: {PerPeer: maxAsking, Wait: true},
		follows: {PerPeer: maxFollowing, Total: helperclient.MaxMiddlewareReaders, Kept: keptFollowing, First: owners,
			Full: "too many logs or installations are already being followed; end one of them"},
		asksNode: {PerPeer: maxAsking, Wait: true},
		followsNode: {PerPeer: maxFollowing, Total: maxNodeReaders, Kept: keptFollowing, First: owners,
			Full: "too many follow the node already; end one of them"},
		watches: {PerPeer: maxWatching, Total: maxWatchingAll, Kept: keptWatching, First: owners,
			Full: "too many streams of events are open; close one"},
	}
}

// Deadlines of calls.
const (
	// quick is for calls that are answered at once, or by another process of the Base.
	quick = 30 * time.Second
	// apply is for changes of how open the Base is: the helper takes up to 90 s for each step
	// forward and back.
	apply = 5 * time.Minute
	// look is for an audit, for which the helper has three minutes.
	look = 4 * time.Minute
	// carry is for sending a release over a slow network.
	carry = time.Hour
)

// Sizes of requests, in bytes. Others fit into one frame.
const (
	// documentSize holds a posture (posture.MaxDocumentSize), signed.
	documentSize = 64 << 10
	// pieceSize holds a piece of a release, which has 512 KiB at most.
	pieceSize = 520 << 10
)

const (
	viewer   = basev1.Role_ROLE_VIEWER
	operator = basev1.Role_ROLE_OPERATOR
	owner    = basev1.Role_ROLE_OWNER
)

// methods is the one table of the API's methods: who may call each, and what a call may cost. A
// method without a row, or a row without a method, stops the Middleware at its start, and fails a
// test.
var methods = map[string]method{
	baserpc.InfoServiceGetInfo: {least: viewer, holds: asks, deadline: quick},

	baserpc.AppsServiceListApps:  {least: viewer, deadline: quick},
	baserpc.AppsServiceRenameApp: {least: owner, deadline: quick, goesOn: true},
	baserpc.AppsServiceRevokeApp: {least: owner, deadline: quick, goesOn: true},

	baserpc.PairingServiceGetWindow:     {least: viewer, holds: asks, deadline: quick},
	baserpc.PairingServiceOpenWindow:    {least: owner, deadline: quick, goesOn: true},
	baserpc.PairingServiceCloseWindow:   {least: owner, deadline: quick, goesOn: true},
	baserpc.PairingServiceAcceptPairing: {least: owner},
	baserpc.PairingServiceAnswerPairing: {least: owner, deadline: quick, goesOn: true},

	baserpc.EventsServiceWatchEvents: {least: viewer, holds: watches},

	baserpc.PostureServiceGetPosture:    {least: viewer, holds: asks, deadline: quick},
	baserpc.PostureServiceSubmitPosture: {least: owner, deadline: apply, size: documentSize, goesOn: true},
	baserpc.PostureServiceConfirmTry:    {least: owner, deadline: apply, goesOn: true},
	baserpc.PostureServiceLockdown:      {least: owner, deadline: apply, goesOn: true},
	baserpc.PostureServiceEndLease:      {least: owner, deadline: apply, goesOn: true},
	baserpc.PostureServiceFactoryReset:  {least: owner, deadline: apply, goesOn: true},

	baserpc.BansServiceListBans: {least: viewer, holds: asks, deadline: quick},
	baserpc.BansServiceLiftBan:  {least: owner, deadline: quick, goesOn: true},

	baserpc.AuditServiceRunAudit:   {least: operator, holds: asks, deadline: look},
	baserpc.AuditServiceFixFinding: {least: owner, deadline: apply, goesOn: true},

	baserpc.UpdateServiceGetUpdate:            {least: viewer, holds: asks, deadline: quick},
	baserpc.UpdateServiceBringUpdate:          {least: owner, deadline: carry, size: pieceSize, goesOn: true},
	baserpc.UpdateServiceWatchUpdate:          {least: owner},
	baserpc.UpdateServiceConfirmUpdate:        {least: owner, deadline: quick},
	baserpc.UpdateServiceGoBack:               {least: owner, deadline: quick, goesOn: true},
	baserpc.UpdateServiceInstallDebianUpdates: {least: operator, holds: follows},

	baserpc.MachineServiceGetHistory:    {least: viewer, deadline: quick},
	baserpc.MachineServiceListTimeZones: {least: viewer, holds: asks, deadline: quick},
	baserpc.MachineServiceSetTimeZone:   {least: operator, holds: asks, deadline: quick, goesOn: true},
	baserpc.MachineServiceReboot:        {least: operator, holds: asks, deadline: quick, goesOn: true},
	baserpc.MachineServicePowerOff:      {least: owner, deadline: quick, goesOn: true},

	baserpc.ServicesServiceListServices:  {least: viewer, holds: asks, deadline: quick},
	baserpc.ServicesServiceChangeService: {least: operator, holds: asks, deadline: quick, goesOn: true},
	baserpc.ServicesServiceReadLogs:      {least: operator, holds: follows},

	baserpc.WalletServiceGetWallets: {least: viewer, holds: asks, deadline: quick},

	baserpc.ChangesServiceListChanges: {least: viewer, holds: asks, deadline: quick},

	baserpc.DiskServiceListDisks: {least: viewer, holds: asks, deadline: quick},
	baserpc.DiskServiceUseDisk:   {least: owner, deadline: apply, goesOn: true},

	baserpc.NodeServiceGetNode:            {least: viewer, holds: asksNode, deadline: quick},
	baserpc.NodeServiceListPeers:          {least: viewer, holds: asksNode, deadline: quick},
	baserpc.NodeServiceListBlocks:         {least: viewer, holds: asksNode, deadline: quick},
	baserpc.NodeServiceGetFees:            {least: viewer, holds: asksNode, deadline: quick},
	baserpc.NodeServiceGetTransaction:     {least: viewer, holds: asksNode, deadline: quick},
	baserpc.NodeServiceListHeaders:        {least: viewer, holds: asksNode, deadline: quick},
	baserpc.NodeServiceWatchBlocks:        {least: viewer, holds: followsNode},
	baserpc.NodeServiceChangeNodeSettings: {least: owner, deadline: quick, goesOn: true},
	baserpc.NodeServiceBringBitcoinCore:   {least: owner, deadline: carry, size: pieceSize, goesOn: true},
	baserpc.NodeServiceRebuildChain:       {least: owner, deadline: quick, goesOn: true},
}

// handlers returns the handler of each method.
func (s *Server) handlers() map[string]rpc.Handler {
	all := map[string]rpc.Handler{}
	for _, service := range []map[string]rpc.Handler{
		baserpc.InfoServiceHandlers(infoService{s}), baserpc.AppsServiceHandlers(appsService{s}),
		baserpc.PairingServiceHandlers(pairingService{s}), baserpc.EventsServiceHandlers(eventsService{s}),
		baserpc.PostureServiceHandlers(postureService{s}),
		baserpc.BansServiceHandlers(bansService{s}), baserpc.AuditServiceHandlers(auditService{s}),
		baserpc.UpdateServiceHandlers(updateService{s}), baserpc.MachineServiceHandlers(machineService{s}),
		baserpc.ServicesServiceHandlers(servicesService{s}), baserpc.ChangesServiceHandlers(changesService{s}),
		baserpc.NodeServiceHandlers(nodeService{s}), baserpc.DiskServiceHandlers(diskService{s}),
		baserpc.WalletServiceHandlers(walletService{s}),
	} {
		maps.Copy(all, service)
	}
	return all
}

// rows joins the table and the handlers.
func (s *Server) rows(table map[string]method, classes map[holds]*rpc.Class) ([]rpc.Method, error) {
	handlers := s.handlers()
	var rows []rpc.Method
	for name, m := range table {
		handler, ok := handlers[name]
		if !ok {
			return nil, reason.Errorf("the table of methods has a row for %s, which has no handler", name)
		}
		delete(handlers, name)
		rows = append(rows, rpc.Method{
			Name: name, MaxRequest: m.size, Deadline: m.deadline, GoesOn: m.goesOn, Class: classes[m.holds], Handler: handler,
			Allow: func(ctx context.Context) error {
				if err := s.Registry.Authorise(sessionOf(ctx), m.least); err != nil {
					return s.apiError(err)
				}
				return nil
			},
		})
	}
	for name := range handlers {
		return nil, reason.Errorf("the table of methods has no row for %s", name)
	}
	return rows, nil
}
