package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/image/build"
	"github.com/BitBoxSwiss/bitbox-base/image/secureboot"
)

// setFlags declares the options that build and assemble have in common.
func setFlags(flags *flag.FlagSet, o *build.Options) {
	flags.StringVar(&o.Architecture, "arch", "amd64", "amd64 or arm64")
	flags.StringVar(&o.Package, "package", "", "our Debian package")
	flags.StringVar(&o.Out, "out", "", "the directory to make")
	flags.StringVar(&o.Keys, "keys", "", "the directory of the Secure Boot keys, if it is there")
}

// unchanged stands for the owner of the files if root itself builds: they stay root's.
const unchanged = -1

// parseAssembly reads the arguments that assemblyOf has written.
func parseAssembly(arguments []string) (o build.Options, user, group int, err error) {
	flags := flag.NewFlagSet("image assemble", flag.ContinueOnError)
	setFlags(flags, &o)
	flags.StringVar(&o.Init, "init", "", "the program of the initrd")
	flags.StringVar(&o.Cache, "cache", "", "where Debian's parts are kept")
	flags.StringVar(&o.Provision, "provision", "", "the provisioning file")
	flags.BoolVar(&o.Microsoft, "microsoft", false, "accept what Microsoft has signed as well")
	flags.IntVar(&user, "user", unchanged, "the user who gets the files")
	flags.IntVar(&group, "group", unchanged, "the group that gets them")
	if err = flags.Parse(arguments); err == nil && flags.NArg() > 0 {
		err = errors.New(usage)
	}
	return o, user, group, err
}

// assemblyOf returns the arguments of assemble. They name everything, because sudo drops the environment
// and root has another home.
func assemblyOf(o build.Options, user, group int) []string {
	return []string{
		"assemble", "--arch=" + o.Architecture, "--package=" + o.Package, "--init=" + o.Init, "--out=" + o.Out, "--keys=" + o.Keys,
		"--cache=" + o.Cache, "--provision=" + o.Provision, fmt.Sprintf("--microsoft=%t", o.Microsoft),
		fmt.Sprintf("--user=%d", user), fmt.Sprintf("--group=%d", group),
	}
}

// absolute makes the paths absolute, for tools that see another root. An empty path stays empty.
func absolute(o build.Options) (build.Options, error) {
	for _, path := range []*string{&o.Package, &o.Init, &o.Out, &o.Keys, &o.Cache, &o.Provision} {
		if *path == "" {
			continue
		}
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return o, err
		}
	}
	return o, nil
}

// asRoot assembles the image, by sudo if this is not root.
func asRoot(ctx context.Context, o build.Options) error {
	if os.Geteuid() == 0 {
		return assemble(ctx, assemblyOf(o, unchanged, unchanged)[1:])
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	// Not with the context: Ctrl-C reaches sudo as well, which passes it on and waits. To end sudo
	// alone would leave the builder behind.
	command := exec.Command("sudo", append([]string{program}, assemblyOf(o, os.Getuid(), os.Getgid())...)...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	switch err := command.Run(); {
	case errors.Is(err, exec.ErrNotFound):
		return errors.New("one step needs root, and there is no sudo here; call make as root")
	case err != nil:
		return fmt.Errorf("the step that runs as root failed, see above: %w", err)
	}
	return nil
}

// assemble is the step that needs root.
func assemble(ctx context.Context, arguments []string) error {
	o, user, group, err := parseAssembly(arguments)
	if err != nil {
		return err
	}
	fmt.Printf("Debian's parts stay in %s for the next build.\n", o.Cache)
	begun := time.Now()
	o.Progress = func(what string) { fmt.Printf("%6.1f s  %s\n", time.Since(begun).Seconds(), what) }
	info, err := build.Build(ctx, o)
	if err != nil {
		return err
	}
	if user != unchanged {
		if err := give(o, user, group); err != nil {
			return err
		}
	}
	fmt.Printf("%6.1f s  made %s: version %s, Debian's archive of %s, root %d MiB, UKI %d MiB\n", time.Since(begun).Seconds(),
		filepath.Join(o.Out, build.DiskFile), info.Version, info.Archive, info.RootSize>>20, info.EntrySize>>20)
	if !info.Signed {
		fmt.Println("It is not signed: machines with Secure Boot do not start it.")
	}
	return nil
}

// give makes a user the owner of the image, and of the signed lists beside the keys.
func give(o build.Options, user, group int) error {
	var made []string
	if o.Keys != "" {
		made, _ = filepath.Glob(filepath.Join(o.Keys, "*"+secureboot.EnrolSuffix)) // its only error is a bad pattern
	}
	err := filepath.WalkDir(o.Out, func(path string, _ fs.DirEntry, err error) error {
		made = append(made, path)
		return err
	})
	for _, path := range made {
		err = errors.Join(err, os.Lchown(path, user, group))
	}
	return err
}
