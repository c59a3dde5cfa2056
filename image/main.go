// Command image makes bootable images of the appliance; `make image` runs it. docs/image.md describes the image and its
// construction.
//
//	go run ./image build --arch ARCHITECTURE --package FILE --out DIRECTORY
//	go run ./image keys DIRECTORY
//
// keys makes the Secure Boot keys of a builder, once.
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

// buildImage builds what the arguments and the environment of make ask for.
func buildImage(ctx context.Context, arguments []string, getenv func(string) string) (failed error) {
	o := build.Options{Cache: getenv("BITBOX_BASE_IMAGE_CACHE")}
	flags := flag.NewFlagSet("image build", flag.ContinueOnError)
	flags.StringVar(&o.Architecture, "arch", "amd64", "amd64 or arm64")
	flags.StringVar(&o.Package, "package", "", "our Debian package")
	flags.StringVar(&o.Out, "out", "", "the directory to make")
	app := flags.String("app", "", "the App's program, for what the Base is told")
	keys := flags.String("keys", "", "the directory of the Secure Boot keys, if it is there")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if o.Package == "" || o.Out == "" || flags.NArg() > 0 {
		return errors.New(usage)
	}
	// Tools see another root.
	var err error
	if o.Out, err = filepath.Abs(o.Out); err != nil {
		return err
	}
	if o.Cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("find the cache directory (set BITBOX_BASE_IMAGE_CACHE): %w", err)
		}
		o.Cache = filepath.Join(user, "bitbox-base-image")
	}
	if o.Cache, err = filepath.Abs(o.Cache); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(*keys, secureboot.DB+secureboot.CertificateSuffix)); *keys != "" && err == nil {
		o.Keys = *keys
	}
	switch microsoft := getenv("MICROSOFT"); microsoft {
	case "":
	case "1":
		o.Microsoft = true
	default:
		return fmt.Errorf("MICROSOFT=%s is not understood; MICROSOFT=1 has machines accept what Microsoft has signed as well", microsoft)
	}
	if err := o.Ready(); err != nil {
		return err
	}
	file, forget, err := provisioningFile(ctx, *app, getenv)
	if err != nil {
		return err
	}
	defer func() { forget(failed) }()
	o.Provision = file
	begun := time.Now()
	o.Progress = func(what string) { fmt.Printf("%6.1f s  %s\n", time.Since(begun).Seconds(), what) }
	info, err := build.Build(ctx, o)
	if err != nil {
		return err
	}
	fmt.Printf("%6.1f s  made %s: version %s, Debian's archive of %s, root %d MiB, UKI %d MiB\n", time.Since(begun).Seconds(),
		filepath.Join(o.Out, build.DiskFile), info.Version, info.Archive, info.RootSize>>20, info.EntrySize>>20)
	if !info.Signed {
		fmt.Println("It is not signed: machines with Secure Boot do not start it. `make secure-boot-keys` makes keys of your own.")
	}
	return nil
}
