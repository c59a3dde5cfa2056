// Package services has the one table of the services that a Base manages: the name of each in the
// API, its unit, and what an App may do to it.
//
// No message names a unit. Services that keep the Base closed, or that let its owner reach it,
// can never be stopped or switched off here. In addition to the built-in table, the builder of an
// appliance can name further services in a file of root's ([Read]).
//
// # Off, even after a reboot
//
// The root of an image is read-only, and nothing writes to /etc at run time. So a service that is
// switched off has a file in [DisabledDirectory], and its unit has a condition on that file: in
// the unit itself, in an addition to Debian's unit (packaging), or, for the builder's services,
// in one that a systemd generator writes at each boot ([Generate]).
package services

import (
	"path"
	"slices"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
)

// DisabledDirectory has a file for each service that is switched off, by its name. It belongs to
// the system helper.
const DisabledDirectory = generation.StateDirectory + "/disabled"

// Units beside those of internal/helper/generation.
const (
	SystemUnit  = "bitbox-base-system.service"
	ConsoleUnit = "bitbox-base-console.service"
	TimeUnit    = "systemd-timesyncd.service"
	// DebianUpdatesUnit installs Debian's updates; a timer starts it every night.
	DebianUpdatesUnit = "apt-daily-upgrade.service"
)

// Service is one service that the Base manages.
type Service struct {
	// Name is its name in the API: lower case letters, digits and hyphens.
	Name string
	// Description is for people.
	Description string
	// Unit is its systemd unit.
	Unit string
	// Actions are what an App may do to it.
	Actions []basev1.ServiceAction
	// OnDemand: it does not start at boot, but when it is needed.
	OnDemand bool
	// CutsCaller: restarting it may end the connection that the request came by.
	CutsCaller bool
}

const (
	start   = basev1.ServiceAction_SERVICE_ACTION_START
	stop    = basev1.ServiceAction_SERVICE_ACTION_STOP
	restart = basev1.ServiceAction_SERVICE_ACTION_RESTART
	enable  = basev1.ServiceAction_SERVICE_ACTION_ENABLE
	disable = basev1.ServiceAction_SERVICE_ACTION_DISABLE
)

var (
	// all is for services that nothing else depends on.
	all = []basev1.ServiceAction{start, stop, restart, enable, disable}
	// again is for services that must run.
	again = []basev1.ServiceAction{start, restart}
)

// builtIn is the table. A compromised Middleware can use every action in it, again and again, so
// the services that filter, ban or lease have no action that ends them. The console and the
// helper have no actions at all, because an owner takes such a Base back there. The announcement
// and the time service may be switched off: without them the Base talks to fewer hosts.
var builtIn = []Service{
	{Name: "firewall", Description: "Packet filter: accepts only what the posture allows", Unit: generation.FirewallUnit},
	{Name: "nginx", Description: "NGINX, the Base's single entry", Unit: generation.ProxyUnit, Actions: again, CutsCaller: true},
	{Name: "middleware", Description: "Serves the Apps", Unit: generation.MiddlewareUnit, Actions: again, CutsCaller: true},
	{Name: "system-helper", Description: "Puts the posture in force", Unit: SystemUnit},
	{Name: "fail2ban", Description: "Bans addresses with too many failures", Unit: generation.BansUnit, Actions: again},
	{Name: "ssh", Description: "SSH, while an owner has leased it", Unit: generation.SSHUnit, OnDemand: true},
	{Name: "console", Description: "Shows codes at the Base, and takes the answers", Unit: ConsoleUnit},
	{Name: "mdns", Description: "Announces the Base on the local network (Avahi)", Unit: generation.MDNSUnit, Actions: all},
	{Name: "bitcoin", Description: "Bitcoin node, if the Base has one", Unit: generation.ChainUnit, Actions: all},
	{Name: "bitbox-node", Description: "Watches the Bitcoin node", Unit: generation.WatcherUnit, Actions: again},
	{Name: "wallet-server", Description: "Serves wallets from the node (Electrum)", Unit: generation.WalletUnit, Actions: all},
	{Name: "time-sync", Description: "Sets the clock from the network", Unit: TimeUnit, Actions: all},
	{Name: "debian-updates", Description: "Installs Debian's security updates every night", Unit: DebianUpdatesUnit, OnDemand: true},
}

// Table is the services that a Base manages.
type Table []Service

// BuiltIn returns the services that every Base has.
func BuiltIn() Table { return slices.Clone(builtIn) }

// Find returns the service with this name.
func (t Table) Find(name string) (Service, bool) {
	i := slices.IndexFunc(t, func(s Service) bool { return s.Name == name })
	if i < 0 {
		return Service{}, false
	}
	return t[i], true
}

// OfUnit returns the service with this unit.
func (t Table) OfUnit(unit string) (Service, bool) {
	i := slices.IndexFunc(t, func(s Service) bool { return s.Unit == unit })
	if i < 0 {
		return Service{}, false
	}
	return t[i], true
}

// Names are all names, in the order of the table.
func (t Table) Names() []string {
	var names []string
	for _, s := range t {
		names = append(names, s.Name)
	}
	return names
}

// Units are all units, in the order of the table.
func (t Table) Units() []string {
	var units []string
	for _, s := range t {
		units = append(units, s.Unit)
	}
	return units
}

// May tells whether an App may do this to the service.
func (s Service) May(action basev1.ServiceAction) bool { return slices.Contains(s.Actions, action) }

// Marker is the file that exists while the service is switched off.
func (s Service) Marker() string { return path.Join(DisabledDirectory, s.Name) }

// Condition is the condition that the unit of a service needs to be switched off.
func (s Service) Condition() string { return "ConditionPathExists=!" + s.Marker() }
