package middleware

import "github.com/BitBoxSwiss/bitbox-base/api/base/v1/basev1connect"

// machineService looks after the machine below the Base.
type machineService struct {
	*Server
	basev1connect.UnimplementedMachineServiceHandler
}
