// Command image builds a bootable image of the appliance (amd64), or its root file system
// (arm64). `make image` runs it. docs/image.md describes the image and its construction.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/image/build"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/provision"
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
	o := build.Options{
		Cache:     getenv("BITBOX_BASE_IMAGE_CACHE"),
		Provision: provision.Request{Hostname: getenv("IMAGE_HOSTNAME"), SSHKey: getenv("SSH_KEY")},
	}
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.StringVar(&o.Architecture, "arch", "amd64", "amd64 or arm64")
	flags.StringVar(&o.Package, "package", "", "our Debian package")
	flags.StringVar(&o.Out, "out", "", "the file to make")
	app := flags.String("app", "", "the App's program, for PAIR=1")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if o.Package == "" || o.Out == "" || flags.NArg() > 0 {
		return errors.New("it is called with --package FILE --out FILE; `make image` does that")
	}
	if text := getenv("SSH_LEASE_FROM_FIRST_BOOT"); text != "" {
		lease, err := commandline.ParseDuration(text)
		if err == nil && lease == 0 {
			err = errors.New("it must be longer than 0")
		}
		if err != nil {
			return fmt.Errorf("read SSH_LEASE_FROM_FIRST_BOOT: %w", err)
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
	if err := o.Ready(); err != nil {
		return err
	}
	switch display := getenv("IMAGE_DISPLAY"); display {
	case "":
	case provision.NoDisplay:
		o.Provision.NoDisplay = true
	default:
		return fmt.Errorf("DISPLAY=%s is not understood; DISPLAY=none makes an image for a board without a display", display)
	}
	switch pair := getenv("PAIR"); {
	case pair == "1":
		file, forget, err := prePair(ctx, *app, o.Provision.Hostname)
		if err != nil {
			return err
		}
		defer func() { forget(failed) }()
		o.Provision.PrePaired = file
	case pair != "":
		return fmt.Errorf("PAIR=%s is not understood; PAIR=1 makes an image that is pre-paired with your App", pair)
	}
	begun := time.Now()
	o.Progress = func(what string) { fmt.Printf("%6.1f s  %s\n", time.Since(begun).Seconds(), what) }
	size, used, err := build.Build(ctx, o)
	if err != nil {
		return err
	}
	fmt.Printf("%6.1f s  made %s: %d MiB, %d MiB of it in use\n", time.Since(begun).Seconds(), o.Out, size>>20, used>>20)
	if o.Provision.PrePaired != "" {
		fmt.Println("The image holds private keys: it is for one board, and for nobody else to see. Remove it when the board has booted.")
	}
	return nil
}

// prePair has the App make the keys of an image that is pre-paired with it. The file is
// gone after forget, and if the image failed the App knows nothing of it either.
func prePair(ctx context.Context, app, name string) (file string, forget func(failed error), err error) {
	if app == "" {
		return "", nil, errors.New("PAIR=1 needs the App: name its program with --app; `make image` does that")
	}
	directory, err := os.MkdirTemp("", "bitbox-base-prepaired-") // mode 0700
	if err != nil {
		return "", nil, fmt.Errorf("make the keys of the image: %w", err)
	}
	file = filepath.Join(directory, "keys")
	argv := []string{"--json", "prepair", file}
	if name != "" {
		argv = append(argv, "--name", name)
	}
	command := exec.CommandContext(ctx, app, argv...)
	command.Stderr = os.Stderr
	out, err := command.Output()
	var base struct {
		Name string `json:"name"`
	}
	if err == nil {
		err = json.Unmarshal(out, &base)
	}
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("have the App make the keys of the image: %w", err), os.RemoveAll(directory))
	}
	return file, func(failed error) {
		_ = os.RemoveAll(directory) // what stays is of no use without the App
		if failed != nil && base.Name != "" {
			// Whatever ends this run must not leave a Base in the App that never was.
			_ = exec.Command(app, "forget", "--force", base.Name).Run()
		}
	}, nil
}
