// Command image makes a bootable image of the appliance (amd64), or its root file
// system (arm64). `make image` runs it; docs/image.md says what is in an image and
// how it is made.
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
	"github.com/BitBoxSwiss/bitbox-base/internal/provision"
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
func run(ctx context.Context, arguments []string, getenv func(string) string) error {
	o := build.Options{
		Cache:     getenv("BITBOX_BASE_IMAGE_CACHE"),
		Provision: provision.Request{Hostname: getenv("IMAGE_HOSTNAME"), SSHKey: getenv("SSH_KEY")},
	}
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.StringVar(&o.Architecture, "arch", "amd64", "amd64 or arm64")
	flags.StringVar(&o.Package, "package", "", "our Debian package")
	flags.StringVar(&o.Out, "out", "", "the file to make")
	flags.StringVar(&o.Provision.Born, "born", "", "the file that 'bitbox-app born' has made; the image is then of mode 0600")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if o.Package == "" || o.Out == "" || flags.NArg() > 0 {
		return errors.New("it is called with --package FILE --out FILE; `make image` does that")
	}
	if text := getenv("SSH_LEASE_FROM_FIRST_BOOT"); text != "" {
		lease, err := time.ParseDuration(text)
		if err != nil || lease <= 0 {
			return fmt.Errorf("SSH_LEASE_FROM_FIRST_BOOT=%s is no time; give it as 45m or 1h", text)
		}
		o.Provision.SSHFromFirstBoot = lease
	}
	if o.Cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("find the cache directory (set BITBOX_BASE_IMAGE_CACHE): %w", err)
		}
		o.Cache = filepath.Join(user, "bitbox-base-image")
	}
	begun := time.Now()
	o.Progress = func(what string) { fmt.Printf("%6.1f s  %s\n", time.Since(begun).Seconds(), what) }
	size, used, err := build.Build(ctx, o)
	if err != nil {
		return err
	}
	fmt.Printf("%6.1f s  made %s: %d MiB, %d MiB of it in use\n", time.Since(begun).Seconds(), o.Out, size>>20, used>>20)
	if o.Provision.Born != "" {
		fmt.Println("The image holds private keys: it is for one board, and for nobody else to see. Remove it when the board has booted.")
	}
	return nil
}
