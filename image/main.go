// Command image makes bootable images of the appliance; `make image` runs it. docs/image.md describes the image and its
// construction.
//
//	go run ./image build --arch ARCHITECTURE --package FILE --out DIRECTORY
//	go run ./image keys DIRECTORY
//
// build is for the person who builds. It calls itself by sudo, as assemble, for the step that needs root. keys makes the
// Secure Boot keys of a builder, once.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/image/build"
	"github.com/BitBoxSwiss/bitbox-base/image/secureboot"
)

const usage = "usage: image build --arch ARCHITECTURE --package FILE --out DIRECTORY | image keys DIRECTORY; `make image` and " +
	"`make secure-boot-keys` call it"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Getenv); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string, getenv func(string) string) error {
	switch {
	case len(arguments) == 2 && arguments[0] == "keys":
		return makeKeys(arguments[1])
	case len(arguments) > 0 && arguments[0] == "build":
		return buildImage(ctx, arguments[1:], getenv)
	case len(arguments) > 0 && arguments[0] == "assemble":
		return assemble(ctx, arguments[1:])
	}
	return errors.New(usage)
}

func makeKeys(directory string) error {
	if err := secureboot.Make(directory, time.Now(), nil); err != nil {
		return err
	}
	fmt.Printf("Made %s. Keep a copy of it in another place: docs/image.md says what losing a key means.\n", directory)
	return nil
}

// buildImage builds what the arguments and the environment of make ask for. It runs as the person who builds: theirs are
// the keys and the App. Root does one step (assemble.go).
func buildImage(ctx context.Context, arguments []string, getenv func(string) string) (failed error) {
	o := build.Options{Cache: build.CacheDirectory(getenv)}
	flags := flag.NewFlagSet("image build", flag.ContinueOnError)
	setFlags(flags, &o)
	app := flags.String("app", "", "the App's program, for what the Base is told")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if o.Package == "" || o.Out == "" || flags.NArg() > 0 {
		return errors.New(usage)
	}
	switch microsoft := getenv("MICROSOFT"); microsoft {
	case "":
	case "1":
		o.Microsoft = true
	default:
		return fmt.Errorf("MICROSOFT=%s is not understood; MICROSOFT=1 has machines accept what Microsoft has signed as well", microsoft)
	}
	for _, missing := range missingKeys(&o, getenv) {
		fmt.Println(missing)
	}
	if err := o.Check(); err != nil {
		return err
	}
	file, forget, err := provisioningFile(ctx, *app, getenv)
	if err != nil {
		return err
	}
	defer func() { forget(failed) }()
	o.Provision = file
	work, err := os.MkdirTemp("", "bitbox-base-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if o.Init, err = build.MakeInit(ctx, o.Architecture, work); err != nil {
		return err
	}
	if o, err = absolute(o); err != nil {
		return err
	}
	return asRoot(ctx, o)
}

// missingKeys says which keys the image is made without. It takes Keys out of the options if they are not there.
func missingKeys(o *build.Options, getenv func(string) string) (missing []string) {
	if _, err := os.Stat(filepath.Join(o.Keys, secureboot.DB+secureboot.CertificateSuffix)); o.Keys == "" || err != nil {
		missing = append(missing, fmt.Sprintf("There are no Secure Boot keys (in %q): the image will not be signed, and machines with Secure "+
			"Boot will not start it. `make secure-boot-keys` makes keys of your own.", o.Keys))
		o.Keys = ""
	}
	if getenv("RELEASE_KEY") == "" {
		missing = append(missing, "There is no release key: the image will take no updates. `make release-key` makes one, and RELEASE_KEY_FILE "+
			"names one that is somewhere else.")
	}
	return missing
}
