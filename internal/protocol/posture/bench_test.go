package posture

import (
	"fmt"
	"testing"
	"time"
)

// full is a Base that keeps as many revisions as it can.
func full(b *testing.B) (*device, AppSeed) {
	d := newDevice(b)
	d.blind = true
	owner := d.owner("owner")
	d.change(owner, func(p *Posture) { d.openSSH(time.Hour)(p); d.openElectrum(time.Hour)(p) })
	for i := 0; len(d.ledger.chain.entries) < keptRevisions; i++ {
		d.change(owner, func(p *Posture) { p.NodeName = fmt.Sprint(i) })
	}
	return d, owner
}

func BenchmarkVerifyChainOfTheLongestHistory(b *testing.B) {
	d, _ := full(b)
	a := d.answer(Memory{})
	b.ReportMetric(float64(len(a.history)), "bytes")
	for b.Loop() {
		if _, err := VerifyChain(a.expect, a.history, a.report); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoadTheLongestHistory(b *testing.B) {
	d, _ := full(b)
	for b.Loop() {
		if _, _, err := Load(d.config, d.disk, d.now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSubmitAndApplied(b *testing.B) {
	d, owner := full(b)
	for b.Loop() {
		d.change(owner, func(p *Posture) { p.PairingClosed = !p.PairingClosed })
	}
}

func BenchmarkEffectiveAndOrder(b *testing.B) {
	d, _ := full(b)
	e := d.ledger.Effective()
	for b.Loop() {
		if !NoMoreOpen(d.ledger.Effective(), e) {
			b.Fatal("more open")
		}
	}
}
