package api

import (
	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/basev1connect"
)

// roles is the one table of who may call what: each method of the API with the
// least role that may call it. A method without a row is not served, and a test
// fails for it, as for a row without a method.
var roles = map[string]basev1.Role{
	basev1connect.InfoServiceGetInfoProcedure: basev1.Role_ROLE_VIEWER,

	basev1connect.AppsServiceListAppsProcedure:  basev1.Role_ROLE_VIEWER,
	basev1connect.AppsServiceRenameAppProcedure: basev1.Role_ROLE_OWNER,
	basev1connect.AppsServiceRevokeAppProcedure: basev1.Role_ROLE_OWNER,

	basev1connect.PairingServiceGetWindowProcedure:   basev1.Role_ROLE_VIEWER,
	basev1connect.PairingServiceOpenWindowProcedure:  basev1.Role_ROLE_OWNER,
	basev1connect.PairingServiceCloseWindowProcedure: basev1.Role_ROLE_OWNER,

	basev1connect.PairingServiceAcceptPairingProcedure: basev1.Role_ROLE_OWNER,
	basev1connect.PairingServiceAnswerPairingProcedure: basev1.Role_ROLE_OWNER,

	basev1connect.PrePairedServiceFetchKeysProcedure: basev1.Role_ROLE_OWNER,

	basev1connect.EventsServiceWatchEventsProcedure: basev1.Role_ROLE_VIEWER,

	basev1connect.PostureServiceGetPostureProcedure:    basev1.Role_ROLE_VIEWER,
	basev1connect.PostureServiceSubmitPostureProcedure: basev1.Role_ROLE_OWNER,
	basev1connect.PostureServiceConfirmTryProcedure:    basev1.Role_ROLE_OWNER,
	basev1connect.PostureServiceLockdownProcedure:      basev1.Role_ROLE_OWNER,
	basev1connect.PostureServiceEndLeaseProcedure:      basev1.Role_ROLE_OWNER,
	basev1connect.PostureServiceFactoryResetProcedure:  basev1.Role_ROLE_OWNER,

	basev1connect.BansServiceListBansProcedure: basev1.Role_ROLE_VIEWER,
	basev1connect.BansServiceLiftBanProcedure:  basev1.Role_ROLE_OWNER,

	basev1connect.UpdateServiceGetUpdateProcedure:            basev1.Role_ROLE_VIEWER,
	basev1connect.UpdateServiceBringUpdateProcedure:          basev1.Role_ROLE_OWNER,
	basev1connect.UpdateServiceWatchUpdateProcedure:          basev1.Role_ROLE_OWNER,
	basev1connect.UpdateServiceInstallDebianUpdatesProcedure: basev1.Role_ROLE_OPERATOR,

	basev1connect.MachineServiceGetHistoryProcedure:    basev1.Role_ROLE_VIEWER,
	basev1connect.MachineServiceListTimeZonesProcedure: basev1.Role_ROLE_VIEWER,
	basev1connect.MachineServiceSetTimeZoneProcedure:   basev1.Role_ROLE_OPERATOR,
	basev1connect.MachineServiceRebootProcedure:        basev1.Role_ROLE_OPERATOR,
	basev1connect.MachineServicePowerOffProcedure:      basev1.Role_ROLE_OWNER,

	basev1connect.ServicesServiceListServicesProcedure:  basev1.Role_ROLE_VIEWER,
	basev1connect.ServicesServiceChangeServiceProcedure: basev1.Role_ROLE_OPERATOR,
	basev1connect.ServicesServiceReadLogsProcedure:      basev1.Role_ROLE_OPERATOR,

	basev1connect.ChangesServiceListChangesProcedure: basev1.Role_ROLE_VIEWER,

	basev1connect.AuditServiceRunAuditProcedure:   basev1.Role_ROLE_OPERATOR,
	basev1connect.AuditServiceFixFindingProcedure: basev1.Role_ROLE_OWNER,
}

// maxAsking is how many calls of the asking table one App has under way; more
// wait. MaxPairings times as many are fewer than the connections that the system
// helper gives the Middleware (ipc.MaxPerUser): what is left is for owners.
const maxAsking = 2

// asking are the methods that have another process asked and that not only owners may
// call. Without a bound, an App with a lesser role could take all connections to
// the system helper, and an owner's lockdown would find none.
var asking = map[string]bool{
	basev1connect.InfoServiceGetInfoProcedure:           true,
	basev1connect.PairingServiceGetWindowProcedure:      true,
	basev1connect.PostureServiceGetPostureProcedure:     true,
	basev1connect.BansServiceListBansProcedure:          true,
	basev1connect.AuditServiceRunAuditProcedure:         true,
	basev1connect.UpdateServiceGetUpdateProcedure:       true,
	basev1connect.MachineServiceListTimeZonesProcedure:  true,
	basev1connect.MachineServiceSetTimeZoneProcedure:    true,
	basev1connect.MachineServiceRebootProcedure:         true,
	basev1connect.ServicesServiceListServicesProcedure:  true,
	basev1connect.ServicesServiceChangeServiceProcedure: true,
	basev1connect.ChangesServiceListChangesProcedure:    true,
}

// maxStreaming is how many calls of the streaming table one App has under way. How many
// all of them have together is helperclient.MaxMiddlewareReaders.
const maxStreaming = 2

// streaming are the methods that hold a connection to the system helper for as long as
// the App likes, and that not only owners may call. They are counted by themselves:
// among those that ask they would leave no place to ask. One more is refused and does
// not wait, for nobody knows how long.
var streaming = map[string]bool{
	basev1connect.ServicesServiceReadLogsProcedure:           true,
	basev1connect.UpdateServiceInstallDebianUpdatesProcedure: true,
}
