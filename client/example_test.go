//go:build linux

package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/devbase"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/appliancetest"
)

// person is a person at a Base that runs in this process, for the examples.
type person struct {
	base *devbase.Base
	dir  string
}

func atTheBase() *person { return atABase(admission.Limits{}) }

func atABase(limits admission.Limits) *person {
	dir, err := os.MkdirTemp("", "bitbox-example-")
	if err != nil {
		log.Fatal(err)
	}
	b, err := devbase.Start(devbase.Config{
		StateDir: dir + "/base",
		Listen:   "127.0.0.1:0",
		Name:     "BitBox Base",
		Limits:   limits,
		Logger:   slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	return &person{b, dir}
}

func (p *person) goHome() {
	if err := p.base.Stop(); err != nil {
		log.Fatal(err)
	}
	if err := os.RemoveAll(p.dir); err != nil {
		log.Fatal(err)
	}
}

// accept types the request number that the App shows, once it has arrived.
func (p *person) accept(number string) {
	n, err := strconv.ParseUint(strings.ReplaceAll(number, " ", ""), 10, 32)
	if err != nil {
		log.Fatal(err)
	}
	for p.base.Console().Accept(context.Background(), uint32(n), basev1.Role_ROLE_OWNER) != nil {
		time.Sleep(10 * time.Millisecond)
	}
}

// confirm answers yes at the Base, and returns the code that it shows.
func (p *person) confirm(ctx context.Context) string {
	for seen := uint64(0); ; {
		snapshot, err := p.base.Console().Watch(ctx, seen)
		if err != nil {
			log.Fatal(err)
		}
		if c := snapshot.GetCeremony(); c.GetPhase() == systemv1.Ceremony_PHASE_SHOWN {
			id, _ := pairing.CeremonyIDOf(snapshot)
			if err := p.base.Console().Answer(ctx, id, true); err != nil {
				log.Fatal(err)
			}
			return c.GetCode()
		}
		seen = snapshot.GetVersion()
	}
}

// Pairing with a Base and calling it. Here the person who compares the codes is
// played by the program; in an App it must be a person.
func Example() {
	person := atTheBase()
	defer person.goHome()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	app, err := client.New(client.Options{Dir: person.dir + "/app", Name: "Laptop"})
	if err != nil {
		log.Fatal(err)
	}
	paired, err := app.Pair(ctx, []string{person.base.Addr().String()}, client.PairOptions{
		Requested: func(number string) { go person.accept(number) },
		Confirm: func(ctx context.Context, code client.Code) (bool, error) {
			return person.confirm(ctx) == code.Digits, nil
		},
	})
	if err != nil {
		log.Fatal(client.Explain(err))
	}
	fmt.Printf("%s is %s\n", paired.Name, paired.State)

	session, err := app.Open("BitBox Base")
	if err != nil {
		log.Fatal(client.Explain(err))
	}
	defer session.Close()
	info, err := session.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
	if err != nil {
		log.Fatal(client.Explain(err))
	}
	fmt.Printf("%s knows this App as %s\n", info.GetName(), info.GetCaller().GetName())
	// Output:
	// BitBox Base is active
	// BitBox Base knows this App as Laptop
}

// Listing what has announced itself on the local network.
func ExampleApp_Discover() {
	app, err := client.New(client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	found, err := app.Discover(context.Background())
	if err != nil {
		log.Fatal(client.Explain(err))
	}
	for _, nearby := range found {
		fmt.Println(nearby.Name, nearby.Addresses, nearby.Known)
	}
}

// pairAt pairs an App with a Base in this process. The first example shows how it is done with
// people.
func pairAt(ctx context.Context, person *person) *client.Session {
	app, err := client.New(client.Options{Dir: person.dir + "/app", Name: "Laptop"})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := app.Pair(ctx, []string{person.base.Addr().String()}, client.PairOptions{
		Requested: func(number string) { go person.accept(number) },
		Confirm: func(ctx context.Context, code client.Code) (bool, error) {
			return person.confirm(ctx) == code.Digits, nil
		},
	}); err != nil {
		log.Fatal(client.Explain(err))
	}
	session, err := app.Open("")
	if err != nil {
		log.Fatal(client.Explain(err))
	}
	return session
}

// Calling the services of a Base, and telling failures apart.
func ExampleSession() {
	person := atTheBase()
	defer person.goHome()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	session := pairAt(ctx, person)
	defer session.Close()

	list, err := session.Apps.ListApps(ctx, &basev1.ListAppsRequest{})
	if err != nil {
		log.Fatal(client.Explain(err))
	}
	for _, app := range list.GetApps() {
		fmt.Println(app.GetName(), "is", app.GetRole().Name())
	}
	_, err = session.Apps.RenameApp(ctx, &basev1.RenameAppRequest{Id: "nobody", Name: "Tablet"})
	if errors.Is(err, client.ErrNotFound) {
		fmt.Println(client.Explain(err))
	}
	// Output:
	// Laptop is owner
	// the Base refused: no App with this id is paired
}

// Showing past events, and then new ones. A lost connection is made again.
func ExampleSession_WatchEvents() {
	person := atTheBase()
	defer person.goHome()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	session := pairAt(ctx, person)
	defer session.Close()

	for event, err := range session.WatchEvents(ctx, client.Watch{Replay: true}) {
		if err != nil {
			log.Fatal(client.Explain(err))
		}
		if paired := event.GetAppPaired(); paired != nil {
			fmt.Printf("%s was paired as %s\n", paired.GetApp().GetName(), paired.GetApp().GetRole().Name())
		}
		if event.GetSubscribed() != nil {
			break // from here on it would wait for more
		}
	}
	// Output:
	// Laptop was paired as owner
}

// Changing how open a Base is. Each difference is shown before anything is signed.
func ExampleSession_Apply() {
	appliance, err := appliancetest.Start(nil) // an appliance in this process
	if err != nil {
		log.Fatal(err)
	}
	defer func() {
		if err := appliance.Stop(); err != nil {
			log.Fatal(err)
		}
	}()
	dir, err := os.MkdirTemp("", "bitbox-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	app, err := client.New(client.Options{Dir: dir + "/app", Name: "Laptop", NoDiscovery: true})
	if err != nil {
		log.Fatal(err)
	}
	let := make(chan error, 1)
	_, err = app.Pair(ctx, []string{appliance.Address()}, client.PairOptions{
		Requested: func(number string) { go func() { let <- appliance.Let(ctx, number, basev1.Role_ROLE_OWNER) }() },
		Confirm:   func(context.Context, client.Code) (bool, error) { return true, nil }, // a person compares
	})
	if err := errors.Join(err, <-let); err != nil {
		log.Fatal(client.Explain(err))
	}
	session, err := app.Open("")
	if err != nil {
		log.Fatal(client.Explain(err))
	}
	defer session.Close()

	view, err := session.Apply(ctx, client.Change{
		Edit: client.Expose("electrum", client.Opening{For: 24 * time.Hour, ShareEntry: true}),
		Approve: func(changes []client.PostureChange) (bool, error) {
			for _, change := range changes {
				fmt.Println(change.Text)
			}
			return true, nil
		},
	})
	if err != nil {
		log.Fatal(client.Explain(err))
	}
	fmt.Println("it is in force, and signed:", len(view.Effective().Endpoints) == 2)
	// Output:
	// The Electrum API will be reachable for 1 day on port 8845, beside the encrypted channel.
	// it is in force, and signed: true
}
