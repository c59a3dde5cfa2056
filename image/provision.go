package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
)

// shorthands are the variables of `make image` that stand for options of `bitbox-app provision`.
var shorthands = []struct{ variable, option string }{
	{"IMAGE_HOSTNAME", "--name"},
	{"SSH_KEY", "--ssh-key"},
	{"SSH_LEASE_FROM_FIRST_BOOT", "--ssh-lease"},
	{"IMAGE_DISPLAY", "--display"},
}

// provisioningFile has the App write the file that the image is to bring along; "" if nothing was
// asked for. The file is gone after forget, and if the image failed the App knows nothing of its
// claim either.
func provisioningFile(ctx context.Context, app string, getenv func(string) string) (file string, forget func(failed error), err error) {
	forget = func(error) {}
	if file := getenv("PROVISION"); file != "" {
		return file, forget, nil
	}
	var options []string
	for _, s := range shorthands {
		if value := getenv(s.variable); value != "" {
			options = append(options, s.option, value)
		}
	}
	switch pair := getenv("PAIR"); pair {
	case "":
	case "1":
		if options = append(options, "--pair"); getenv("IMAGE_DISPLAY") == "" {
			options = append(options, "--display", "none")
		}
	default:
		return "", forget, fmt.Errorf("PAIR=%s is not understood; PAIR=1 makes an image whose Base your App claims", pair)
	}
	if len(options) == 0 {
		return "", forget, nil
	}
	if app == "" {
		return "", forget, errors.New("the App writes what the Base is told: name its program with --app; `make image` does that")
	}
	directory, err := os.MkdirTemp("", "bitbox-base-provision-") // mode 0700
	if err != nil {
		return "", forget, fmt.Errorf("make the provisioning file: %w", err)
	}
	command := exec.CommandContext(ctx, app, append([]string{"--json", "provision", "--to", directory}, options...)...)
	command.Stderr = os.Stderr
	out, err := command.Output()
	var made struct {
		Base struct{ Name string }
	}
	if err == nil {
		err = json.Unmarshal(out, &made)
	}
	if err != nil {
		return "", forget, errors.Join(fmt.Errorf("have the App make the provisioning file: %w", err), os.RemoveAll(directory))
	}
	return directory + "/" + bootdisk.ProvisionFile, func(failed error) {
		_ = os.RemoveAll(directory) // it is in the image
		if failed != nil && made.Base.Name != "" {
			// Whatever ends this run must not leave a Base in the App that never was.
			_ = exec.Command(app, "forget", "--yes", made.Base.Name).Run()
		}
	}, nil
}
