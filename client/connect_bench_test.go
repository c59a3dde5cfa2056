//go:build linux

package client_test

import (
	"context"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
)

// Connect, handshake and first call, with a real Base: once for a running App, and once for one
// that has just been started.
func BenchmarkConnectAndFirstCall(b *testing.B) {
	limits := admission.DefaultLimits()
	limits.PerSecond, limits.Burst = 1e6, 1e6 // this one connects more often than an App may
	person := atABase(limits)
	defer person.goHome()
	ctx := b.Context()
	start := func() *client.App {
		app, err := client.New(client.Options{Dir: person.dir + "/app", Name: "Laptop", NoDiscovery: true})
		if err != nil {
			b.Fatal(err)
		}
		return app
	}
	running := start()
	_, err := running.Pair(ctx, []string{person.base.Addr().String()}, client.PairOptions{
		Requested: func(number string) { go person.accept(number) },
		Confirm: func(ctx context.Context, code client.Code) (bool, error) {
			return person.confirm(ctx) == code.Digits, nil
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	for name, app := range map[string]func() *client.App{"running": func() *client.App { return running }, "fresh": start} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				session, err := app().Open("")
				if err != nil {
					b.Fatal(err)
				}
				if _, err := session.Info.GetInfo(ctx, &basev1.GetInfoRequest{}); err != nil {
					b.Fatal(err)
				}
				session.Close()
			}
		})
	}
}
