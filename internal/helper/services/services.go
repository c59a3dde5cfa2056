// Package services is the one table of the services that a Base manages: what each is
// called in the API, which unit it is, and what an App may do to it.
//
// No message names a unit. What keeps the Base closed, and what lets its owner reach
// it, is never stopped or switched off from here. Beside the built-in table the
// builder of an appliance names services of his own in a file that is root's (Read).
//
// # Off, also after a reboot
//
// The root of an image is read-only, and nothing writes /etc at run time. So a service
// that is switched off has a file in DisabledDirectory, and its unit a condition on
// that file: its own, or in an addition to Debian's (packaging), or, for the builder's
// services, in one that a systemd generator writes at each boot (Generate).
package services

import (
	"path"
	"slices"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
)

// DisabledDirectory has a file for each service that is switched off, by its name. It
// is the system helper's.
const DisabledDirectory = generation.StateDirectory + "/disabled"

// Units beside those of internal/helper/generation.
const (
	SystemUnit  = "bitbox-base-system.service"
	ConsoleUnit = "bitbox-base-console.service"
	TimeUnit    = "systemd-timesyncd.service"
	// DebianUpdatesUnit installs Debian's updates; a timer starts it each night.
	DebianUpdatesUnit = "apt-daily-upgrade.service"
)

// Service is one service that the Base manages.
type Service struct {
	// Name is what the API calls it: lower case letters, digits and hyphens.
	Name string
	// Description is for people.
	Description string
	// Unit is its systemd unit.
	Unit string
	// Actions are what an App may do to it.
	Actions []basev1.ServiceAction
	// OnDemand: it does not start with the machine, but when it is needed.
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
	// all is for what nothing else depends on.
	all = []basev1.ServiceAction{start, stop, restart, enable, disable}
	// again is for what has to run.
	again = []basev1.ServiceAction{start, restart}
)

// builtIn is the table. A Middleware that was taken over can do what it says, again and
// again, so: what filters, bans or is asked for a lease has no action that ends it. The
// console and the helper have none at all, for there an owner takes such a Base back.
// Announcing and asking for the time may be switched off: without them the Base speaks
// to fewer.
var builtIn = []Service{
	{Name: "firewall", Description: "Packet filter: accepts only what the posture allows", Unit: generation.FirewallUnit},
	{Name: "nginx", Description: "NGINX, the Base's single entry", Unit: generation.ProxyUnit, Actions: again, CutsCaller: true},
	{Name: "middleware", Description: "Serves the Apps", Unit: generation.MiddlewareUnit, Actions: again, CutsCaller: true},
	{Name: "system-helper", Description: "Puts the posture in force", Unit: SystemUnit},
	{Name: "fail2ban", Description: "Bans addresses with too many failures", Unit: generation.BansUnit, Actions: again},
	{Name: "ssh", Description: "SSH, while an owner has leased it", Unit: generation.SSHUnit, OnDemand: true},
	{Name: "console", Description: "Shows codes at the Base, and takes the answers", Unit: ConsoleUnit},
	{Name: "mdns", Description: "Announces the Base on the local network (Avahi)", Unit: generation.MDNSUnit, Actions: all},
	{Name: "time-sync", Description: "Sets the clock by the network", Unit: TimeUnit, Actions: all},
	{Name: "debian-updates", Description: "Installs Debian's security updates, each night", Unit: DebianUpdatesUnit, OnDemand: true},
}

// Table is what a Base manages.
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

// Marker is the file that is there while the service is switched off.
func (s Service) Marker() string { return path.Join(DisabledDirectory, s.Name) }

// Condition is what the unit of a service that can be switched off has to say.
func (s Service) Condition() string { return "ConditionPathExists=!" + s.Marker() }
