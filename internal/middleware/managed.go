package middleware

import "github.com/BitBoxSwiss/bitbox-base/api/base/v1/basev1connect"

// servicesService shows and changes the services that run on the Base, and their logs.
type servicesService struct {
	*Server
	basev1connect.UnimplementedServicesServiceHandler
}
