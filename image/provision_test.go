package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/provisioning"
)

// app builds the App's program, with a directory of its own.
func app(t *testing.T) string {
	t.Helper()
	t.Setenv("BITBOX_APP_DIR", t.TempDir())
	path := filepath.Join(t.TempDir(), "bitbox-app")
	if out, err := exec.Command("go", "build", "-o", path, "../cmd/bitbox-app").CombinedOutput(); err != nil {
		t.Fatalf("build the App: %v\n%s", err, out)
	}
	return path
}

// bases are the names that the App knows.
func bases(t *testing.T, app string) (names []string) {
	t.Helper()
	out, err := exec.Command(app, "--json", "bases").Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []struct{ Name string }
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatal(err)
	}
	for _, base := range list {
		names = append(names, base.Name)
	}
	return names
}

func TestTheShorthandsOfMakeImageWriteAProvisioningFile(t *testing.T) {
	program := app(t)
	key := filepath.Join(t.TempDir(), "id.pub")
	const line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDvpxXGDAu0w+FUDIb/ygcy6q1chR7o1fzWvDDnfwJSA alice@laptop\n"
	if err := os.WriteFile(key, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	environment := func(pairs ...string) func(string) string {
		return func(name string) string {
			for _, pair := range pairs {
				if value, ok := strings.CutPrefix(pair, name+"="); ok {
					return value
				}
			}
			return ""
		}
	}
	t.Run("all of them", func(t *testing.T) {
		file, forget, err := provisioningFile(t.Context(), program,
			environment("IMAGE_HOSTNAME=cellar", "SSH_KEY="+key, "SSH_LEASE_FROM_FIRST_BOOT=1h", "PAIR=1"))
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		f, err := provisioning.Parse(content)
		if err != nil || f.Name != "cellar" || len(f.SSHKeys) != 1 || f.SSHLease != time.Hour || !f.NoDisplay || f.Claim == nil {
			t.Errorf("it says %+v, %v", f, err)
		}
		if names := bases(t, program); len(names) != 1 || names[0] != "cellar" {
			t.Errorf("the App knows %v", names)
		}
		forget(errors.New("the image failed"))
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) || len(bases(t, program)) != 0 {
			t.Errorf("after a failure the file is there (%v), and the App knows %v", err, bases(t, program))
		}
	})
	t.Run("none of them", func(t *testing.T) {
		if file, _, err := provisioningFile(t.Context(), "", environment()); err != nil || file != "" {
			t.Errorf("it made %q, %v", file, err)
		}
	})
	t.Run("a file that is there", func(t *testing.T) {
		if file, _, err := provisioningFile(t.Context(), "", environment("PROVISION=mine")); err != nil || file != "mine" {
			t.Errorf("it made %q, %v", file, err)
		}
	})
	for name, variables := range map[string][]string{
		"another PAIR":          {"PAIR=yes"},
		"a lease without a key": {"SSH_LEASE_FROM_FIRST_BOOT=1h", "PAIR=1"},
		"another display":       {"IMAGE_DISPLAY=hdmi", "PAIR=1"},
	} {
		t.Run(name, func(t *testing.T) {
			if file, _, err := provisioningFile(t.Context(), program, environment(variables...)); err == nil || len(bases(t, program)) != 0 {
				t.Errorf("it made %q, and the App knows %v", file, bases(t, program))
			}
		})
	}
}
