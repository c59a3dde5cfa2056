package owner

import (
	"errors"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
)

// Each step makes the Base worse, or what is said of it more urgent: the newest one is its standing.
func TestTheStandingThatMattersMostIsSaid(t *testing.T) {
	b := &Base{Connection: Connected}
	b.Look.Info = &basev1.GetInfoResponse{DiskTotalBytes: 100, DiskAvailableBytes: 50}
	b.Look.Access = &Access{}
	finding := func(s basev1.Finding_Severity) {
		b.Findings = append(b.Findings, &basev1.Finding{Id: s.String(), Severity: s})
	}
	for _, step := range []struct {
		key  string
		make func()
	}{
		{"good", func() { finding(basev1.Finding_SEVERITY_INFO) }},
		{"doubted", func() { b.Connection = Doubted }},
		{"warning", func() { finding(basev1.Finding_SEVERITY_WARNING) }},
		{"node", func() { b.Look.Node = &basev1.Node{State: basev1.Node_STATE_STOPPED} }},
		{"disk", func() { b.Look.Info.DiskAvailableBytes = 4 }},
		{"trying", func() { b.Look.Access.Trying = true }},
		{"failed", func() {
			b.Look.Services = []*basev1.Service{{Name: "mdns"}, {Name: "nginx", State: basev1.Service_STATE_FAILED}}
		}},
		{"critical", func() { finding(basev1.Finding_SEVERITY_CRITICAL) }},
		{"lockdown", func() { b.Look.Access.Lockdown = true }},
		{"connecting", func() { b.Look.Info = nil }},
		{"unfollowed", func() { b.Connection = Unfollowed }},
		{"lost", func() { b.Connection = Lost }},
		{"lie", func() { b.Look.Lie = errors.New("not signed") }},
		{"ended", func() { b.Connection = Ended }},
		{"reset", func() { b.State = client.Reset }},
		{"revoked", func() { b.State = client.Revoked }},
	} {
		step.make()
		s := b.Standing()
		if s.Key != step.key {
			t.Errorf("the Base is %q, not %q", s.Key, step.key)
		}
		if (s.Finding != nil) != (s.Key == "warning" || s.Key == "critical") || (s.Service == "nginx") != (s.Key == "failed") {
			t.Errorf("%s names %v and %q", s.Key, s.Finding, s.Service)
		}
	}
}
