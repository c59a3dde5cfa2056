// Command image builds a bootable image of the appliance (amd64), or its root file system
// (arm64). `make image` runs it. docs/image.md describes the image and its construction.
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
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Getenv); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// run builds what the arguments and the environment of make ask for.
func run(ctx context.Context, arguments []string, getenv func(string) string) (failed error) {
	o := build.Options{Cache: getenv("BITBOX_BASE_IMAGE_CACHE")}
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.StringVar(&o.Architecture, "arch", "amd64", "amd64 or arm64")
	flags.StringVar(&o.Package, "package", "", "our Debian package")
	flags.StringVar(&o.Out, "out", "", "the file to make")
	app := flags.String("app", "", "the App's program, for what the Base is told")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if o.Package == "" || o.Out == "" || flags.NArg() > 0 {
		return errors.New("it is called with --package FILE --out FILE; `make image` does that")
	}
	if o.Cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("find the cache directory (set BITBOX_BASE_IMAGE_CACHE): %w", err)
		}
		o.Cache = filepath.Join(user, "bitbox-base-image")
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
	size, used, err := build.Build(ctx, o)
	if err != nil {
		return err
	}
	fmt.Printf("%6.1f s  made %s: %d MiB, %d MiB of it in use\n", time.Since(begun).Seconds(), o.Out, size>>20, used>>20)
	return nil
}
