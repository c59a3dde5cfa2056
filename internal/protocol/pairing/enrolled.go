package pairing

import (
	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Enrolled is an active key of a registry.
type Enrolled struct {
	SigningKey [32]byte            // K_sign
	AppKey     noiseconn.PublicKey // as the Middleware told it
	Role       basev1.Role
	Name       string
}

// ParseRegistry reads what ServiceConfig.Save was given; nil is the registry of a
// new Base.
func ParseRegistry(saved []byte) ([]Enrolled, error) {
	r, err := parseRegistry(saved)
	if err != nil {
		return nil, reason.Errorf("read the registry of enrolled keys: %w", err)
	}
	var list []Enrolled
	for _, e := range r {
		list = append(list, Enrolled{SigningKey: e.signingKey, AppKey: e.appKey, Role: e.role, Name: e.name})
	}
	return list, nil
}

// NewRegistry returns a registry with these keys active, as ServiceConfig.Save would
// be given it.
func NewRegistry(list ...Enrolled) ([]byte, error) {
	var r registry
	for _, e := range list {
		r = append(r, entry{signingKey: e.SigningKey, appKey: e.AppKey, role: e.Role, name: e.Name, active: true})
	}
	saved := r.marshal()
	if _, err := parseRegistry(saved); err != nil {
		return nil, reason.Errorf("make a registry of enrolled keys: %w", err)
	}
	return saved, nil
}
