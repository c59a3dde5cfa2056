package middleware

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

	basev1connect.EventsServiceWatchEventsProcedure: basev1.Role_ROLE_VIEWER,

	basev1connect.PostureServiceGetPostureProcedure:    basev1.Role_ROLE_VIEWER,
	basev1connect.PostureServiceGetChallengeProcedure:  basev1.Role_ROLE_OWNER,
	basev1connect.PostureServiceSubmitPostureProcedure: basev1.Role_ROLE_OWNER,
	basev1connect.PostureServiceConfirmTryProcedure:    basev1.Role_ROLE_OWNER,
	basev1connect.PostureServiceLockdownProcedure:      basev1.Role_ROLE_OWNER,
	basev1connect.PostureServiceEndLeaseProcedure:      basev1.Role_ROLE_OWNER,

	basev1connect.BansServiceListBansProcedure: basev1.Role_ROLE_VIEWER,
	basev1connect.BansServiceLiftBanProcedure:  basev1.Role_ROLE_OWNER,

	basev1connect.AuditServiceRunAuditProcedure:   basev1.Role_ROLE_OPERATOR,
	basev1connect.AuditServiceFixFindingProcedure: basev1.Role_ROLE_OWNER,
}

// mayCall tells whether an App with this role may call a method that asks for
// least. Each role may do all that the one before it may.
func mayCall(role, least basev1.Role) bool {
	return least > basev1.Role_ROLE_UNSPECIFIED && role >= least && role <= basev1.Role_ROLE_OWNER
}
